"""What a loaded data set is: rows for training and testing, and all that must be known to build a model for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Source
from oblivio.data.columns import Field

Task: TypeAlias = Literal["classification", "binary", "multilabel", "regression"]
TASKS: tuple[Task, ...] = ("classification", "binary", "multilabel", "regression")


@dataclass(frozen=True)
class Layout:
    """The columns of a table's ``x``, from which the fitted part of a model is built (``TablePreprocess``).

    Attributes:
        sizes: for each column the number of its categories, 0 for a column of numbers.
        gaps: places of the columns with missing values, which get an indicator.
    """

    sizes: tuple[int, ...]
    gaps: tuple[int, ...] = ()


Preprocess: TypeAlias = Layout | Literal["channels"] | None


@dataclass(frozen=True)
class Dataset:
    """A loaded data set.

    Attributes:
        name: as it was asked for.
        train: rows to train on.
        test: rows to test on.
        task: ``classification`` (y: class numbers, int64, (n,)), ``binary`` (y: 0 or 1, int64, (n,); one output),
            ``multilabel`` (y: 0 or 1, int64, (n, outputs)) or ``regression`` (y: float32, (n,), or (n, outputs) for
            several targets).
        inputs: shape of one row of ``x``: (channels, height, width) in [0, 1], or (columns,) of raw numbers and
            category codes, NaN where missing.
        outputs: logits or values that a model gives for a row.
        classes: what the labels stand for, in their order.
        fields: the user's names for columns, for selecting rows by them; ``class`` or the target's name gives the
            labels as words, ``y`` as numbers.
        preprocess: what must be fitted to the rows a model is trained on: ``"channels"`` (mean and deviation of each
            channel), the layout of a table, or None. See ``fit_preprocess``.
        notes: what was done to the data, one sentence each.
        licence: as stated by its source.
    """

    name: str
    train: Source
    test: Source
    task: Task
    inputs: tuple[int, ...]
    outputs: int
    classes: tuple[str, ...] | None = None
    fields: Mapping[str, Field] = field(default_factory=dict)
    preprocess: Preprocess = None
    notes: tuple[str, ...] = ()
    licence: str = "not stated"

    def describe(self) -> dict[str, Any]:
        """All but the rows, as JSON can hold it: what is saved beside a model (vocabularies are in ``fields``)."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("train", "test")}
        facts["fields"] = {name: asdict(f) for name, f in self.fields.items()}
        if isinstance(self.preprocess, Layout):
            facts["preprocess"] = asdict(self.preprocess)
        described: dict[str, Any] = json.loads(json.dumps(facts))
        return {**described, "rows": {"train": len(self.train), "test": len(self.test)}}


def known_task(task: str) -> Task:
    """``task`` where it is one of ``TASKS``; else BadInput with the nearest."""
    for known in TASKS:
        if task == known:
            return known
    raise BadInput(f"no task is called {task!r}{nearest(task, TASKS)}")
