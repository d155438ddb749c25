"""The user's own rows: ``package.module:function``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.data.dataset import Dataset, Task, known_task
from oblivio.networks._own import called
from oblivio.sources import as_source


def own(reference: str, task: str | None = None, **options: Any) -> Dataset:
    """The data set that the function returns, or one described from the rows that it returns.

    Args:
        reference: ``package.module:function``.
        task: of the rows; None lets the targets tell: fractions are a regression, several a row are labels, only 0 and
            1 are binary, other whole numbers classes.
        options: of the function.

    Raises:
        BadInput: a function that cannot be imported or called, or what it returns is neither a ``Dataset`` nor two
            sources of rows with ``x`` and ``y``.
    """
    made = called(reference, options)
    if isinstance(made, Dataset):
        return _as_told(made, task, reference)
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise BadInput(
            f"{reference} returned a {type(made).__name__}; give an oblivio.data.Dataset, or (train, test), each a "
            "map-style Dataset, (x, y) or a dict of columns"
        )
    train, test = (as_source(rows, f"a part of {reference}") for rows in made)
    return described(reference, train, test, task)


def described(name: str, train: Source, test: Source, task: str | None = None) -> Dataset:
    """A data set of these rows: inputs from the first row, outputs from the targets, nothing fitted."""
    x, y = _first(train, f"train of {name}")
    _first(test, f"test of {name}")
    chosen = known_task(task) if task is not None else _told(train, y)
    return Dataset(
        name=name, train=train, test=test, task=chosen, inputs=tuple(x.shape[1:]), outputs=_outputs(chosen, train, y),
        notes=(f"{len(train):,} rows to train on and {len(test):,} to test, as {name} returned them",),
    )  # fmt: skip


def _as_told(dataset: Dataset, task: str | None, reference: str) -> Dataset:
    if task not in (None, dataset.task):
        raise BadInput(f"{reference} returned a Dataset for {dataset.task}, and data.task is {task!r}; leave it out")
    return dataset


def _first(source: Source, name: str) -> tuple[Tensor, Tensor]:
    """The inputs and targets of the first row."""
    if not len(source):
        raise BadInput(f"{name}: no rows")
    batch = source.batch(torch.arange(1))
    for needed in ("x", "y"):
        if needed not in source.columns or not isinstance(batch[needed], Tensor):
            raise BadInput(f"{name}: a row is to have x and y as numbers; its columns are {', '.join(source.columns)}")
    return batch["x"], batch["y"]


def _told(source: Source, y: Tensor) -> Task:
    if y.is_floating_point():
        return "regression"
    if y.dim() > 1:
        return "multilabel"
    return "binary" if int(column(source, "y").max()) <= 1 else "classification"


def _outputs(task: Task, source: Source, y: Tensor) -> int:
    if task == "classification":
        return int(column(source, "y").max()) + 1
    return 1 if y.dim() == 1 else y.shape[1]
