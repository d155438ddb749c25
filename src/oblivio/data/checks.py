"""Whether rows suit a model: shapes, finite inputs, labels within its outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Batch, Source
from oblivio.data.columns import AT_ONCE
from oblivio.data.dataset import Task
from oblivio.data.identity import shown

Fault: TypeAlias = Callable[[Batch], Tensor]  # which rows of a batch have it


def check(
    source: Source, name: str, *, task: Task, outputs: int, inputs: tuple[int, ...] | None = None, missing: bool = False
) -> None:
    """Read all rows once, in passing, and refuse what no model can be trained on.

    Args:
        source: rows with ``x``, and ``y`` where they have labels.
        name: of the source, for the messages.
        task: as ``Dataset.task``.
        outputs: of the model.
        inputs: shape of one row of ``x``; None accepts any.
        missing: whether NaN in ``x`` stands for a missing value, as in a table.

    Raises:
        BadInput: no rows, another shape, NaN or infinite inputs or targets, labels that the model has no output for;
            the message counts the rows and names the first ids.
    """
    if not len(source):
        raise BadInput(f"{name}: no rows")
    first = source.batch(torch.arange(1))
    _check_inputs(name, first, inputs)
    faults: dict[str, Fault] = {"with NaN or infinite inputs": lambda batch: _broken(batch["x"], missing)}
    if "y" in source.columns:
        _check_targets(name, first["y"], task, outputs)
        faults |= _label_faults(task, outputs)
    for fault, places in _found(source, faults).items():
        if len(places):
            raise BadInput(
                f"{name}: {len(places)} rows {fault}, ids {shown(source.ids[places.numpy()])}; mend them or "
                "leave them out"
            )


def _found(source: Source, faults: dict[str, Fault]) -> dict[str, Tensor]:
    """Places of the rows with each fault, from one pass over the rows."""
    masks: dict[str, list[Tensor]] = {fault: [] for fault in faults}
    for batch in source.batches(AT_ONCE):
        for fault, rows in faults.items():
            masks[fault].append(rows(batch).cpu())
    return {fault: torch.cat(each).nonzero().flatten() for fault, each in masks.items()}


def _broken(x: Tensor, missing: bool) -> Tensor:
    if not x.is_floating_point():
        return torch.zeros(len(x), dtype=torch.bool)
    values = x.reshape(len(x), -1)
    return (values.isinf() if missing else ~values.isfinite()).any(dim=1)


def _label_faults(task: Task, outputs: int) -> dict[str, Fault]:
    if task == "classification":
        return {
            f"with labels outside 0 to {outputs - 1}, the outputs of the model": lambda batch: (
                (batch["y"] < 0) | (batch["y"] >= outputs)
            )
        }
    if task == "regression":
        return {"with NaN or infinite targets": lambda batch: _broken(batch["y"], missing=False)}
    return {
        "with labels other than 0 and 1": lambda batch: (
            ((batch["y"] != 0) & (batch["y"] != 1)).reshape(len(batch), -1).any(dim=1)
        )
    }


def _check_inputs(name: str, first: Batch, inputs: tuple[int, ...] | None) -> None:
    held = tuple(first["x"].shape[1:])
    if inputs is not None and held != inputs:
        raise BadInput(f"{name}: rows of x have the shape {held}, and the model takes {inputs}")


def _check_targets(name: str, y: Tensor, task: Task, outputs: int) -> None:
    held, allowed = tuple(y.shape[1:]), _label_shapes(task, outputs)
    if held not in allowed:
        raise BadInput(
            f"{name}: rows of y have the shape {held}, and {task} with {outputs} outputs needs "
            f"{' or '.join(map(str, allowed))}"
        )
    if task == "classification" and y.is_floating_point():
        raise BadInput(f"{name}: labels are {y.dtype}; classification needs whole numbers (regression takes these)")


def _label_shapes(task: Task, outputs: int) -> list[tuple[int, ...]]:
    if task == "classification":
        return [()]
    return [(), (1,)] if outputs == 1 and task != "multilabel" else [(outputs,)]
