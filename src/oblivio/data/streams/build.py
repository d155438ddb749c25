"""From rows and their places to a stream: the part that all kinds of streams share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Ids
from oblivio.data.columns import Values, column
from oblivio.data.dataset import Dataset
from oblivio.data.loading import load
from oblivio.data.splitting import Places, cut
from oblivio.data.streams.experience import Experience, Scenario, Stream
from oblivio.sources.marked import Change, Marked

Groups: TypeAlias = Sequence[Sequence[Any]]  # classes by number or name


def loaded(dataset: Dataset | str | Path) -> Dataset:
    """The data set itself, or the one of this name (see ``load``)."""
    return dataset if isinstance(dataset, Dataset) else load(dataset)


@dataclass(frozen=True, eq=False)
class Pool:
    """The rows of a data set from which experiences are cut.

    Attributes:
        dataset: with its training and test rows.
        valid: the share of the training rows, of every class, that no experience trains on.
        seed: of the draw of these.
    """

    dataset: Dataset
    valid: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.valid, (int, float)) and 0 <= self.valid < 1):
            raise BadInput(f"valid={self.valid!r} is no share; give a number from 0 to below 1, such as 0.1")
        for half in ("train", "test"):
            if not len(getattr(self.dataset, half)):
                raise BadInput(f"{self.dataset.name!r} has no rows to {half} on")

    @property
    def labelled(self) -> bool:
        """Whether a row has one class."""
        return self.dataset.task in ("classification", "binary")

    @property
    def count(self) -> int:
        """How many classes there are."""
        return 2 if self.dataset.task == "binary" else self.dataset.outputs

    @cached_property
    def train(self) -> Values:
        """Targets of the training rows."""
        return column(self.dataset.train, "y")

    @cached_property
    def test(self) -> Values:
        """Targets of the test rows."""
        return column(self.dataset.test, "y")

    @cached_property
    def ids(self) -> tuple[Ids, Ids]:
        """Ids of the training and of the test rows."""
        return self.dataset.train.ids, self.dataset.test.ids

    @cached_property
    def cut(self) -> tuple[Places, Places]:
        """Places of the rows to train on and to validate on."""
        everything = np.arange(len(self.dataset.train))
        if not self.valid:
            return everything, everything[:0]
        return cut(len(everything), float(self.valid), self.seed, self.train if self.labelled else None)

    @cached_property
    def learned(self) -> Values:
        """Of each training row, whether it is trained on."""
        kept = np.zeros(len(self.dataset.train), dtype=bool)
        kept[self.cut[0]] = True
        return kept

    def check_classes(self, kind: str) -> None:
        """Refuse rows without classes."""
        if not self.labelled:
            raise BadInput(
                f"{self.dataset.name!r} is a {self.dataset.task}, whose rows have no one class; a {kind} stream needs "
                "classes (permuted and rotated ones, and lists of data sets in the scenario domain, do not)"
            )

    def described(self) -> dict[str, Any]:
        """Its part of a recipe."""
        return {"dataset": self.dataset.name, "valid": self.valid, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class Named:
    """Ids of the training and of the test rows of a data set; those with the same ``naming`` can be compared."""

    ids: tuple[Ids, Ids]
    naming: object


@dataclass(frozen=True, eq=False)
class Marks:
    """How the rows of one data set stand in a stream: labels by task, changes of the inputs, ids.

    Attributes:
        pool: the rows.
        scenario: of the stream.
        table: ``y`` by task and label of the data set; None: unchanged.
        changes: of the inputs; ``which`` of an experience chooses one.
        named: what the records are called in place of the data set's own ids.
    """

    pool: Pool
    scenario: Scenario
    table: Tensor | None = None
    changes: tuple[Change, ...] = ()
    named: Named | None = None

    def learn(self, places: Places, task: int, name: str, *, which: int = 0, home: Values | None = None) -> Experience:
        """Training rows as an experience; those cut for validation go there.

        Args:
            places: in the training rows of the data set.
            task: of the experience.
            name: for people.
            which: change of the inputs.
            home: the task of every training row of the data set, where rows of other tasks come too.
        """
        kept = self.pool.learned[places]
        rows, valid = (
            self._view(0, at, task if home is None else _tensor(home[at]), which)
            for at in (places[kept], places[~kept])
        )
        if not len(rows):
            raise BadInput(f"experience {name!r} has no rows to train on; ask for fewer tasks or other classes")
        if self.pool.valid and not len(valid):
            raise BadInput(
                f"valid={self.pool.valid} leaves no row of experience {name!r} ({len(rows)} rows) to validate on; ask "
                "for a larger share or fewer tasks"
            )
        labels = self.pool.train[places]
        heads = {} if home is None else self._heads(labels, home[places])
        classes = tuple(sorted({c for each in heads.values() for c in each})) if heads else self._classes(labels, task)
        return Experience(rows, task, classes, self.scenario, valid if self.pool.valid else None, name, heads)

    def measure(self, places: Places, task: int, name: str, *, which: int = 0) -> Experience:
        """Test rows as an experience."""
        if not len(places):
            raise BadInput(f"experience {name!r} has no test rows; leave its classes out or give it some")
        rows = self._view(1, places, task, which)
        return Experience(rows, task, self._classes(self.pool.test[places], task), self.scenario, None, name)

    def _view(self, half: int, places: Places, task: int | Tensor, which: int) -> Marked:
        base = (self.pool.dataset.train, self.pool.dataset.test)[half]
        ids = (self.pool.ids if self.named is None else self.named.ids)[half]
        return Marked(
            base, places, task=task, table=self.table, changes=self.changes, which=which, ids=ids,
            naming=None if self.named is None else self.named.naming,
        )  # fmt: skip

    def _heads(self, labels: Values, home: Values) -> dict[int, tuple[int, ...]]:
        """The classes of each task that rows come from."""
        return {t: self._classes(labels[home == t], t) for t in np.unique(home).tolist()}

    def _classes(self, labels: Values, task: int) -> tuple[int, ...]:
        """The outputs of rows of one task."""
        if not self.pool.labelled:
            return ()
        found = np.unique(labels)
        return tuple(sorted((found if self.table is None else self.table.numpy()[task, found]).tolist()))


def _tensor(values: Values) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))


def stream_of(
    pool: Pool,
    scenario: Scenario,
    train: Sequence[Experience],
    test: Sequence[Experience],
    name: str,
    recipe: Mapping[str, Any],
    *,
    outputs: int,
    labels: tuple[str, ...] | None = None,
    boundaries: bool = True,
) -> Stream:
    """A stream of one data set."""
    dataset = pool.dataset
    # One output that says yes or no cannot be extended; as soon as outputs are counted, two classes have two of them.
    modality = "classification" if dataset.task == "binary" and outputs > 1 else dataset.task
    return Stream(
        name=name, scenario=scenario, train=tuple(train), test=tuple(test), inputs=dataset.inputs, outputs=outputs,
        modality=modality, boundaries=boundaries, labels=labels, preprocess=dataset.preprocess,
        recipe={**pool.described(), "scenario": scenario, **recipe},
    )  # fmt: skip


def numbered(pool: Pool, group: Any, name: str) -> list[int]:
    """The classes of a group by their numbers, given by number or name; at least one.

    Raises:
        BadInput: no list, an empty one, or a class that there is not (with the nearest).
    """
    if isinstance(group, str) or not isinstance(group, Iterable):
        raise BadInput(f"{name} is {group!r}; give the list of its classes")
    numbers = [_number(pool, c, name) for c in group]
    if not numbers:
        raise BadInput(f"{name} has no classes; leave it out or give it some")
    return numbers


def _number(pool: Pool, given: Any, name: str) -> int:
    known = pool.dataset.classes or ()
    if isinstance(given, str) and given in known:
        return known.index(given)
    if isinstance(given, str) and not given.isdecimal():
        raise BadInput(f"{name} has the class {given!r}, which there is not{nearest(given, known)}")
    number = int(given)
    if number != float(given) or not 0 <= number < pool.count:
        raise BadInput(f"{name} has the class {given}, and the classes are 0 to {pool.count - 1}")
    return number


def members(labels: Values, classes: Sequence[int]) -> Places:
    """Places of the rows of these classes, in order."""
    return np.flatnonzero(np.isin(labels, list(classes)))


def words(dataset: Dataset, classes: Sequence[int]) -> str:
    """Classes by what they are called."""
    known = dataset.classes
    return ", ".join(str(c) if known is None else known[c] for c in classes)
