"""Hard ASH: a sparse activation, and linear layers whose rows are centred and of unit length."""

from __future__ import annotations

import math
from collections.abc import MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator
from oblivio.core.surgery import surgery
from oblivio.modules.chain import links
from oblivio.modules.heads import put_layer


class Ash(nn.Module):
    """Keep what lies ``z`` deviations above the mean of a sample's own units.

    ``x sigmoid(alpha (x - m - z s))``; with ``hard`` ``clip(x, 0, 2) hardsigmoid(...)``. m and s are mean and
    population deviation over all units of one sample, never over the batch, and carry a gradient.
    """

    def __init__(self, alpha: float = 3.0, z: float = 2.3, hard: bool = True) -> None:
        super().__init__()
        self.alpha, self.z, self.hard = alpha, z, hard

    def forward(self, x: Tensor) -> Tensor:
        """Shape in is shape out; the first dimension are the samples."""
        units = tuple(range(1, x.dim()))
        m, variance = x.mean(units, keepdim=True), x.var(units, correction=0, keepdim=True)
        u = self.alpha * (x - m - self.z * (variance + 1e-12).sqrt())  # the root of 0 has no gradient
        return x.clamp(0, 2) * F.hardsigmoid(u) if self.hard else x * u.sigmoid()

    def extra_repr(self) -> str:
        """The settings."""
        return f"alpha={self.alpha:g}, z={self.z:g}, hard={self.hard}"


class UnitRows(nn.Linear):
    """A linear layer without bias that uses each row of its weight minus the row's mean, divided by its length."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        centred = self.weight - self.weight.mean(1, keepdim=True)
        return F.linear(x, F.normalize(centred, dim=1))


@surgery
def make_sparse(nets: MutableMapping[str, nn.Module], *, alpha: float, z: float, hard: bool, seed: int) -> None:
    """Put ``Ash`` in the place of every activation of a chain, and unit rows into its hidden linear layers.

    It changes the function: linear layers lose their biases, and their weights are drawn anew, N(0, 2 / fan_in), from
    ``seed``. Convolutions keep theirs. Raises BadInput for a model that is no chain or has no activation.
    """
    model, found = nets["model"], links(nets["model"])
    if not any(link.activations for link in found):
        raise BadInput("the model has no activation between its layers for a sparse one to take the place of")
    for link in found:
        for name in link.activations:
            model.set_submodule(name, Ash(alpha, z, hard).train(model.training))
        _redraw(nets, link.layer, UnitRows, seed)
    _redraw(nets, found[-1].next, nn.Linear, seed)


def _redraw(nets: MutableMapping[str, nn.Module], layer: str, kind: type[nn.Linear], seed: int) -> None:
    old = nets["model"].get_submodule(layer)
    if isinstance(old, nn.Linear):
        put_layer(nets, layer, drawn(old, kind, seed, layer))


def drawn(like: nn.Linear, kind: type[nn.Linear], seed: int, layer: str) -> nn.Linear:
    """A layer of this kind and of the sizes of ``like``, without bias, its weight from N(0, 2 / fan_in)."""
    made = kind(like.in_features, like.out_features, bias=False, device="meta")
    values = torch.randn(made.weight.shape, generator=generator(seed, layer)) * math.sqrt(2 / like.in_features)
    made.weight = nn.Parameter(values.to(like.weight))
    return made.train(like.training)
