"""A head of prototypes: the outputs are cosines between an embedding and one trained vector a class."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.seeds import generator
from oblivio.core.surgery import surgery
from oblivio.modules.drawn import drawn_linear
from oblivio.modules.growing import GrownLinear
from oblivio.modules.heads import linear_layer, put_layer


class Prototypes(GrownLinear):
    """``(n, width)`` to ``cos(P_c, z) / tau``, shape (n, classes); the rows of ``weight`` are the prototypes P.

    It grows as any head does, so that a class of a later experience gets a prototype.
    """

    def __init__(self, width: int, classes: int, tau: float, seed: int) -> None:
        linear = nn.Linear(width, classes, bias=False, device="meta")
        linear.weight = _drawn(classes, width, seed, 0)
        super().__init__(linear)
        self.tau = tau

    def grow(self, by: int, seed: int) -> None:
        """Add ``by`` prototypes."""
        self.weights.append(_drawn(by, self.in_features, seed, self.out_features).to(self.weight))
        self.out_features += by

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=-1), F.normalize(torch.cat([self.weight, *self.weights]), dim=-1)) / self.tau


def _drawn(classes: int, width: int, seed: int, known: int) -> nn.Parameter:
    """Normal entries: long vectors, which a step turns less than short ones."""
    return nn.Parameter(torch.randn(classes, width, generator=generator(seed, "prototypes", known)))


@surgery
def prototype_head(nets: MutableMapping[str, nn.Module], *, layer: str, dim: int, tau: float, seed: int) -> None:
    """Put a projector with one hidden layer to ``dim`` and a prototype a class in the place of the linear ``layer``.

    What the layer computed is gone; it has as many outputs as before.
    """
    head, rng = linear_layer(nets["model"], layer), generator(seed, "prototype_head")
    width = head.in_features
    projector = [drawn_linear(width, width, rng), nn.ReLU(), drawn_linear(width, dim, rng)]
    prototypes = Prototypes(dim, head.out_features, tau, seed)
    put_layer(nets, layer, nn.Sequential(*projector, prototypes).to(head.weight).train(head.training))
