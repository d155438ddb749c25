"""Streams from benchmarks of the shape that Avalanche has: objects with a train_stream and a test_stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data.dataset import Dataset
from oblivio.data.own import described
from oblivio.data.pictures import Labelled
from oblivio.data.streams.build import Marks, Named, Pool
from oblivio.data.streams.experience import Scenario, Stream, known_scenario
from oblivio.data.streams.several import clear_ids, same
from oblivio.sources import Items, as_source


def from_benchmark(benchmark: Any, *, scenario: str | None = None, valid: float = 0.0, seed: int = 0) -> Stream:
    """The stream of a benchmark as Avalanche makes them; nothing of Avalanche is needed.

    Args:
        benchmark: has ``train_stream`` and ``test_stream``, each a sequence of experiences with ``dataset``
            (map-style, items ``(x, y, ...)``), and where they know them ``task_label`` and
            ``classes_in_this_experience``. Labels are read from ``dataset.targets`` where there is one.
        scenario: ``class``, ``task`` or ``domain``. None tells it from the experiences: ``task`` where their task
            labels differ, ``class`` where no class is in two of them, else ``domain``.
        valid: share of each experience's training rows that goes to ``Experience.valid``.
        seed: of the draw of these rows.

    In the scenario ``task``, where tasks count their classes anew (a class is in two of them), every task gets outputs
    of its own. Else tests are numbered as they come; where they are fewer than the experiences, tell
    ``History.record`` which of them was learned. Ids are those of the datasets (``ids``, else positions), behind the
    number of the experience where they would clash.

    Raises:
        BadInput: an object without these streams, an experience without rows or with items of another shape, or classes
            in two experiences of a class-incremental stream.
    """
    learned, tested = (_experiences(benchmark, name) for name in ("train_stream", "test_stream"))
    same(
        [e.dataset for e in (*learned, *tested)], [e.name for e in (*learned, *tested)], "inputs", "inputs of the shape"
    )
    known = known_scenario(scenario) if scenario is not None else told(learned)
    if known == "class":
        check_apart([e.name for e in learned], [e.classes for e in learned])
    numbers = {label: t for t, label in enumerate(dict.fromkeys(e.label for e in learned))} if known == "task" else {}
    if numbers and (unknown := [e.name for e in tested if e.label not in numbers]):
        raise BadInput(f"experience {unknown[0]!r} has a task label that no experience to train on has")
    count = max(e.count for e in (*learned, *tested))
    table = own_outputs(list(numbers), [(e.label, e.classes) for e in learned], count) if known == "task" else None
    marks = [
        [Marks(Pool(e.dataset, valid, seed), known, table, (), ids) for e, ids in zip(half, _ids(half), strict=True)]
        for half in (learned, tested)
    ]
    return Stream(
        name=type(benchmark).__name__, scenario=known,
        train=tuple(m.learn(np.arange(len(e.dataset.train)), numbers.get(e.label, i), e.name)
                    for i, (e, m) in enumerate(zip(learned, marks[0], strict=True))),
        test=tuple(m.measure(np.arange(len(e.dataset.test)), numbers.get(e.label, i), e.name)
                   for i, (e, m) in enumerate(zip(tested, marks[1], strict=True))),
        inputs=learned[0].dataset.inputs, outputs=count if table is None else int(table.max()) + 1,
        recipe={"kind": "from_benchmark", "benchmark": type(benchmark).__name__, "scenario": known, "valid": valid,
                "seed": seed},
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Read:
    """One experience of the benchmark: its rows (as both halves of a data set), task label and classes."""

    name: str
    dataset: Dataset
    label: int
    classes: tuple[int, ...]

    @property
    def count(self) -> int:
        """Outputs that its labels need."""
        return self.classes[-1] + 1


def _experiences(benchmark: Any, stream: str) -> list[Read]:
    found = getattr(benchmark, stream, None)
    if found is None or not hasattr(found, "__iter__"):
        raise BadInput(
            f"a {type(benchmark).__name__} has no {stream}; a benchmark has train_stream and test_stream, sequences of "
            "experiences with .dataset"
        )
    read = [_read(experience, f"{stream.partition('_')[0]} {i}", i) for i, experience in enumerate(found)]
    if not read:
        raise BadInput(f"the {stream} of the {type(benchmark).__name__} has no experience")
    return read


def _read(experience: Any, name: str, i: int) -> Read:
    dataset = getattr(experience, "dataset", None)
    if dataset is None or not hasattr(dataset, "__len__"):
        raise BadInput(f"experience {name!r} has no map-style dataset in its attribute dataset")
    if not len(dataset):
        raise BadInput(f"experience {name!r} has no rows")
    rows = _rows(dataset, name)
    whole = described(name, rows, rows, "classification")
    given = getattr(experience, "classes_in_this_experience", None)
    found = Pool(whole).train if given is None else given
    return Read(name, whole, int(getattr(experience, "task_label", 0) or 0), tuple(sorted({int(c) for c in found})))


def _rows(dataset: Any, name: str) -> Source:
    """Rows whose labels are known without making the items, where the dataset has them."""
    source = as_source(dataset, name)
    targets = getattr(dataset, "targets", None)
    if isinstance(source, Items) and source.index is None and targets is not None and len(targets) == len(dataset):
        labels = targets if isinstance(targets, Tensor) else torch.tensor([int(y) for y in targets])
        return Labelled(source.dataset, {"y": labels.long()}, source._ids)
    return source


def _ids(half: Sequence[Read]) -> list[Named | None]:
    return clear_ids([e.dataset for e in half], [e.name.removeprefix("train ") for e in half])


def told(experiences: Sequence[Read]) -> Scenario:
    """The scenario that experiences have."""
    if len({e.label for e in experiences}) > 1:
        return "task"
    classes = [c for e in experiences for c in e.classes]
    return "class" if len(classes) == len(set(classes)) else "domain"


def check_apart(names: Sequence[Any], classes: Sequence[Sequence[int]]) -> None:
    """Refuse a class that is in two experiences."""
    home: dict[int, Any] = {}
    for name, group in zip(names, classes, strict=True):
        for c in group:
            if c in home:
                raise BadInput(
                    f"class {c} is in the experiences {home[c]} and {name}; in a class-incremental split every class "
                    "has one (scenario='domain' shares the outputs)"
                )
            home[c] = name


def own_outputs(tasks: Sequence[int], classes: Sequence[tuple[int, Sequence[int]]], count: int) -> Tensor | None:
    """Outputs of their own for every task, shape (tasks, labels); None where no label is in two tasks anyway."""
    pairs = {(task, c) for task, group in classes for c in group}
    if len({c for _, c in pairs}) == len(pairs):
        return None
    return torch.arange(len(tasks) * count).view(len(tasks), count)
