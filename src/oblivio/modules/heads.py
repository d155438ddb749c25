"""Heads: the last linear layer of a model, found, and made wider for a while."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.errors import BadInput, nearest
from oblivio.core.seeds import generator
from oblivio.core.surgery import surgery


class WidenedLinear(nn.Linear):
    """A linear layer with ``by`` more outputs, from tensors of their own.

    ``weight`` and ``bias`` are the very Parameters of ``linear``, so that their names, optimiser state and snapshots
    still fit; the new rows are ``extra_weight`` and ``extra_bias``, drawn as torch initialises a linear layer.
    ``out_features`` counts both.
    """

    def __init__(self, linear: nn.Linear, by: int, seed: int) -> None:
        super().__init__(linear.in_features, linear.out_features + by, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        rng, bound = generator(seed, "widen_head"), linear.in_features**-0.5

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=rng).to(linear.weight))

        self.extra_weight = drawn(by, linear.in_features)
        self.extra_bias = None if linear.bias is None else drawn(by)
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``; the old outputs come first and keep their bits."""
        return torch.cat([super().forward(x), F.linear(x, self.extra_weight, self.extra_bias)], -1)

    def narrowed(self) -> nn.Linear:
        """The plain linear layer again, with the same Parameter objects; the new rows are gone."""
        plain = nn.Linear(self.in_features, len(self.weight), self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)


@surgery
def widen_head(nets: MutableMapping[str, nn.Module], *, layer: str, by: int, seed: int) -> None:
    """Give the linear ``layer`` of the model ``by`` more outputs, drawn from ``seed``.

    The old outputs and the names of all weights stay; the new ones are ``<layer>.extra_weight`` and ``.extra_bias``.
    """
    linear = linear_layer(nets["model"], layer)
    if isinstance(linear, WidenedLinear):
        raise BadInput(f"layer {layer!r} has been widened already; narrow it first")
    if by < 1:
        raise BadInput(f"layer {layer!r} cannot be widened by {by}; give 1 or more")
    put_layer(nets, layer, WidenedLinear(linear, by, seed))


@surgery
def narrow_head(nets: MutableMapping[str, nn.Module], *, layer: str) -> None:
    """Take back ``widen_head``: the new outputs are gone, the old ones go on with what they have learned."""
    linear = linear_layer(nets["model"], layer)
    if not isinstance(linear, WidenedLinear):
        raise BadInput(f"layer {layer!r} has not been widened")
    put_layer(nets, layer, linear.narrowed())


def last_linear(module: nn.Module) -> str:
    """The dotted name of the last ``nn.Linear``, in order of definition: the head, whose input is the feature layer.

    Raises:
        BadInput: the module has no linear layer.
    """
    found = _linears(module)
    if not found:
        raise BadInput(f"{type(module).__name__} has no linear layer; name the feature layer")
    return found[-1]


def _linears(module: nn.Module) -> list[str]:
    return [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]


def linear_layer(model: nn.Module, layer: str) -> nn.Linear:
    """The linear layer of this dotted name. Raises BadInput, with the nearest name, where there is none."""
    linears = _linears(model)
    if layer not in linears:
        raise BadInput(f"{layer!r} is no linear layer of the model{nearest(layer, linears)}")
    found = model.get_submodule(layer)
    assert isinstance(found, nn.Linear)
    return found


def put_layer(nets: MutableMapping[str, nn.Module], layer: str, new: nn.Module, net: str = "model") -> None:
    """Put ``new`` in the place of ``layer`` of the network ``net``."""
    if layer:
        nets[net].set_submodule(layer, new)
    else:
        nets[net] = new  # the network is that layer
