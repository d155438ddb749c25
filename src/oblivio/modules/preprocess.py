"""Preprocessing that is fitted to data, as a part of the model: saved with it, fitted anew in a reference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.modules.fitted import AT_ONCE, checked, moments
from oblivio.modules.table import TablePreprocess

Spec: TypeAlias = Mapping[str, Any] | str | None


class Standardise(nn.Module):
    """Subtract ``mean``, divide by ``std``: one pair a channel of images ``(n, C, H, W)`` or a column ``(n, D)``.

    Both are buffers of shape ``(C, 1, 1)`` or ``(D,)``. They are data, not weights: no descent moves them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @classmethod
    def identity(cls, inputs: tuple[int, ...]) -> Standardise:
        """The one that changes nothing, for examples of shape ``inputs``: ``(C, H, W)`` or ``(D,)``."""
        shape = inputs[:1] + (1,) * (len(inputs) - 1)
        return cls(torch.zeros(shape), torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Shape in is shape out."""
        return (x - self.mean) / self.std

    def refit(self, source: Source) -> None:
        """Take mean and deviation from the ``x`` of these rows, in one pass; of a constant only the mean is removed.

        Raises:
            BadInput: no rows, or a mean or deviation that is not finite (the message says of what).
        """
        lines = (batch["x"].transpose(0, 1).flatten(1) for batch in source.batches(AT_ONCE))
        mean, std = checked(*moments(lines), "column" if self.mean.ndim == 1 else "channel")
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(std.view_as(self.std))


def unfitted(spec: Spec, inputs: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """Preprocessing as it is before it is fitted or loaded, and the shape of an example behind it.

    Args:
        spec: ``"channels"`` for ``Standardise``, or a table's ``{"sizes": [...], "gaps": [...]}`` for
            ``TablePreprocess``.
        inputs: shape of an example before it: ``(C, H, W)`` or ``(D,)``.

    Raises:
        BadInput: another spec, or a table's that does not describe each of the columns.
    """
    if spec == "channels":
        return Standardise.identity(inputs), inputs
    if not isinstance(spec, Mapping) or not {"sizes"} <= set(spec) <= {"sizes", "gaps"}:
        raise BadInput(f"{spec!r} is no preprocessing; there are 'channels' and a table's 'sizes' and 'gaps'")
    if (len(spec["sizes"]),) != inputs:
        raise BadInput(f"preprocessing of {len(spec['sizes'])} columns does not suit examples of shape {inputs}")
    table = TablePreprocess(**spec)
    return table, (table.outputs,)


def assembled(net: nn.Module, prepare: nn.Module | None = None, units: nn.Module | None = None) -> nn.Module:
    """``net`` between what is fitted to its inputs and what is fitted to its targets; alone it stays as it is.

    Weights are then called ``net.…``, the fitted numbers ``prepare.…`` and ``units.…``.
    """
    parts = {name: part for name, part in (("prepare", prepare), ("net", net), ("units", units)) if part is not None}
    return net if len(parts) == 1 else nn.Sequential(OrderedDict(parts))
