"""Preprocessing that is fitted to data, as a part of the model: saved with it, fitted anew in a reference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
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


def fit_standardise(x: Tensor) -> Standardise:
    """The ``Standardise`` under which the examples ``x`` have mean 0 and standard deviation 1.

    Args:
        x: ``(n, C, H, W)`` or ``(n, D)``. Of a channel or column that is constant only the mean is removed.

    Raises:
        BadInput: no rows, another shape, or a mean or deviation that is not finite (the message says of what).
    """
    if x.ndim not in (2, 4) or len(x) == 0:
        raise BadInput(f"standardising needs rows of shape (n, columns) or (n, C, H, W), not {tuple(x.shape)}")
    x = x if x.is_floating_point() else x.float()
    axes, keep = ((0, 2, 3), (-1, 1, 1)) if x.ndim == 4 else ((0,), (-1,))
    variance, mean = torch.var_mean(x, axes, correction=0)
    _check_finite(mean + variance, "channel" if x.ndim == 4 else "column")
    constant = x.amin(axes) == x.amax(axes)  # rounding in the mean can give a constant a tiny variance
    std = torch.where(constant, torch.ones_like(variance), variance.sqrt())
    return Standardise(mean.view(keep), std.view(keep))


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


def preprocessed(prepare: nn.Module, net: nn.Module) -> nn.Sequential:
    """``net`` behind ``prepare``. Weights are then called ``net.…``, the fitted numbers ``prepare.…``."""
    return nn.Sequential(OrderedDict(prepare=prepare, net=net))


def _check_finite(statistic: Tensor, unit: str) -> None:
    broken = (~statistic.isfinite()).nonzero().flatten().tolist()
    if broken:
        raise BadInput(f"cannot standardise: {unit} {broken[0]} holds NaN, infinite or too large values")
