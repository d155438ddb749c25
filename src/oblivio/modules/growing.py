"""A head that grows: outputs are added in tensors of their own, whenever an experience brings new classes."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.importance import BLOCKS, RULES
from oblivio.core.seeds import generator
from oblivio.core.surgery import surgery
from oblivio.modules.heads import linear_layer, put_layer


class Blocks(nn.ParameterList):
    """Weights of the outputs that were added, one tensor a time; ``reset_parameters`` draws them as torch does."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.bound = inputs**-0.5

    def reset_parameters(self) -> None:
        """Draw them anew from torch's default generator."""
        for block in self:
            nn.init.uniform_(block, -self.bound, self.bound)


class GrownLinear(nn.Linear):
    """A linear layer with more outputs, added in blocks; the old ones come first and keep their bits.

    ``weight`` and ``bias`` are the very Parameters of the layer it was made from, so that their names, optimiser state
    and snapshots still fit. ``out_features`` counts all.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.weights: nn.ParameterList = Blocks(self.in_features)
        self.biases: nn.ParameterList = Blocks(self.in_features)
        self.train(linear.training)

    def grow(self, by: int, seed: int) -> None:
        """Add ``by`` outputs, drawn as torch initialises a linear layer."""
        rng, bound = generator(seed, "grow_head", self.out_features), self.in_features**-0.5

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=rng).to(self.weight))

        self.weights.append(drawn(by, self.in_features))
        if self.bias is not None:
            self.biases.append(drawn(by))
        self.out_features += by

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        bias = None if self.bias is None else torch.cat([self.bias, *self.biases])
        return F.linear(x, torch.cat([self.weight, *self.weights]), bias)


def _by_block(linear: GrownLinear, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The importance of all outputs, parameter by parameter."""
    added = range(len(linear.weights))
    names = {"weight": ["weight", *(f"weights.{i}" for i in added)], "bias": ["bias", *(f"biases.{i}" for i in added)]}
    sizes = [len(linear.weight), *map(len, linear.weights)]
    return {n: v for key, value in found.items() for n, v in zip(names[key], value.split(sizes), strict=True)}


RULES[GrownLinear], BLOCKS[GrownLinear] = RULES[nn.Linear], _by_block


@surgery
def grow_head(nets: MutableMapping[str, nn.Module], *, layer: str, by: int, seed: int) -> None:
    """Give the linear ``layer`` of the model ``by`` more outputs, drawn from ``seed``; the others stay as they are."""
    linear = linear_layer(nets["model"], layer)
    if not isinstance(linear, GrownLinear):
        put_layer(nets, layer, linear := GrownLinear(linear))
    linear.grow(by, seed)
