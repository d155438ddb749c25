"""Parts of a model that are fitted to rows, not descended: how they are found, and the statistics that they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.source import Source

AT_ONCE = 4096


@runtime_checkable
class Fitted(Protocol):
    """A module whose buffers say something about the rows that the model is trained on."""

    def refit(self, source: Source) -> None:
        """Make the buffers those of ``source``, and of no other rows."""


def refit(model: nn.Module, source: Source) -> None:
    """Fit every ``Fitted`` part of ``model`` to ``source``."""
    for module in model.modules():
        if isinstance(module, Fitted):
            module.refit(source)


def moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every line of the tensors ``(lines, values)`` put side by side, in one pass.

    The deviation of a line whose values are all equal is 1, so that dividing by it changes nothing; of no tensors both
    are empty. Parts are merged as Chan, Golub and LeVeque do, in float64: no difference of large sums is taken.
    """
    count, mean, squares = 0, torch.zeros(0), torch.zeros(0)
    low, high = torch.zeros(0), torch.zeros(0)
    for part in parts:
        values = part.double()
        if not count:
            mean, squares, low, high = values[:, 0], torch.zeros_like(values[:, 0]), values[:, 0], values[:, 0]
        variance, middle = torch.var_mean(values, 1, correction=0)
        new, apart = values.shape[1], middle - mean
        squares = squares + new * variance + apart.square() * count * new / (count + new)
        count += new
        mean = mean + apart * new / count
        low, high = torch.minimum(low, values.amin(1)), torch.maximum(high, values.amax(1))
    return mean.float(), torch.where(low == high, 1.0, (squares / max(count, 1)).sqrt()).float()


def checked(mean: Tensor, std: Tensor, unit: str) -> tuple[Tensor, Tensor]:
    """The same; BadInput where there is none, or where one is not finite (the message says of which ``unit``)."""
    if not len(mean):
        raise BadInput("there are no rows to fit the model's preprocessing to")
    broken = (~(mean + std).isfinite()).nonzero().flatten().tolist()
    if broken:
        raise BadInput(f"cannot standardise: {unit} {broken[0]} holds NaN, infinite or too large values")
    return mean, std
