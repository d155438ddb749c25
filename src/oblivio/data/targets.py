"""Target columns of a data frame as labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.data.columns import Field
from oblivio.data.dataset import Task
from oblivio.data.encoding import codes, is_numbers, is_whole, numbers, vocabulary, whole

if TYPE_CHECKING:
    from pandas import DataFrame, Series


@dataclass(frozen=True)
class Targets:
    """Labels ``y``, the outputs a model needs for them, what they stand for and the names they are found under."""

    y: Tensor
    outputs: int
    classes: tuple[str, ...] | None
    fields: dict[str, Field]

    @property
    def strata(self) -> np.ndarray[Any, Any] | None:
        """One class a row, of which a split takes equal shares; None where a row has no one class."""
        return None if self.classes is None or self.y.ndim > 1 else self.y.numpy()


def targets(frame: DataFrame, names: Sequence[str], task: Task) -> Targets:
    """Labels from the target columns, as ``Dataset.task`` describes them.

    Raises:
        BadInput: a missing target, or targets that do not suit the task (the message names column and rows).
    """
    _check_complete(frame, names)
    if task in ("classification", "binary"):
        return _classes(frame, names, task)
    return _values(frame, names) if task == "regression" else _flags(frame, names)


def _check_complete(frame: DataFrame, names: Sequence[str]) -> None:
    for name in names:
        rows = np.flatnonzero(frame[name].isna())
        if len(rows):
            raise BadInput(
                f"target {name!r} is missing in {len(rows)} rows (rows {rows[:5].tolist()}, counted from "
                "0); leave them out"
            )


def _classes(frame: DataFrame, names: Sequence[str], task: Task) -> Targets:
    if len(names) > 1:
        raise BadInput(f"{', '.join(names)} are all targets; a {task} has one (several are 'multilabel')")
    y, words = _coded(frame[names[0]])
    if task == "binary" and len(words) != 2:
        raise BadInput(f"target {names[0]!r} has {len(words)} values, a binary task has two; use 'classification'")
    outputs = 1 if task == "binary" else len(words)
    classes = tuple(map(str, words))
    return Targets(torch.from_numpy(y).long(), outputs, classes, {names[0]: Field("y", words=words)})


def _coded(series: Series[Any]) -> tuple[np.ndarray[Any, Any], tuple[str, ...] | tuple[int, ...]]:
    if is_whole(series):
        values, y = np.unique(whole(series), return_inverse=True)
        return y, tuple(values.tolist())
    if is_numbers(series):
        raise BadInput(f"target {series.name!r} holds numbers with fractions, which are no classes; use 'regression'")
    words = vocabulary(series)
    return codes(series, words), words


def _values(frame: DataFrame, names: Sequence[str]) -> Targets:
    y = _numbers(frame, names)
    if len(names) == 1:
        return Targets(y[:, 0], 1, None, {names[0]: Field("y")})
    return Targets(y, len(names), None, {name: Field("y", i) for i, name in enumerate(names)})


def _flags(frame: DataFrame, names: Sequence[str]) -> Targets:
    y = _numbers(frame, names)
    for i, name in enumerate(names):
        if not ((y[:, i] == 0) | (y[:, i] == 1)).all():
            raise BadInput(f"target {name!r} holds other values than 0 and 1, which 'multilabel' needs")
    return Targets(y.long(), len(names), tuple(names), {name: Field("y", i) for i, name in enumerate(names)})


def _numbers(frame: DataFrame, names: Sequence[str]) -> Tensor:
    for name in names:
        if not is_numbers(frame[name]):
            raise BadInput(f"target {name!r} holds text; numbers are needed")
    return torch.from_numpy(np.stack([numbers(frame[name]) for name in names], axis=1)).float()
