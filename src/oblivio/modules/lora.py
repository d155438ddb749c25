"""LoRA: a low-rank change beside linear layers, added by surgery and later merged into them."""

from __future__ import annotations

import math
from collections.abc import MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator, mix
from oblivio.core.surgery import surgery
from oblivio.modules.heads import linear_layer, put_layer


class LoraLinear(nn.Linear):
    """A linear layer with ``alpha / rank * B A`` added to its weight, from tensors of their own.

    ``weight`` and ``bias`` are the very Parameters of ``linear``, so that their names, optimiser state and snapshots
    still fit. ``lora_a``, shape (rank, in), is drawn as torch draws a linear layer, ``lora_b``, shape (out, rank), is
    zero: the outputs are at first those of ``linear``.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, seed: int) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        a = torch.empty(rank, linear.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator(seed, "lora"))
        self.lora_a = nn.Parameter(a.to(linear.weight))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        self.scale = alpha / rank
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)

    def delta(self) -> Tensor:
        """What is added to the weight, shape (out, in)."""
        return self.scale * self.lora_b @ self.lora_a

    def merged(self) -> nn.Linear:
        """A plain linear layer with the same Parameter objects, the change added to the weight."""
        with torch.no_grad():
            self.weight += self.delta()
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The layers with LoRA, by their dotted names."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLinear)}


def plain_linears(model: nn.Module) -> list[str]:
    """The dotted names of layers that can take LoRA: ``nn.Linear`` itself.

    Kinds derived from it are left out: some, such as the output of ``nn.MultiheadAttention``, are never called.
    """
    return [name for name, layer in model.named_modules() if type(layer) is nn.Linear]


@surgery
def add_lora(
    nets: MutableMapping[str, nn.Module], *, layers: list[str], rank: int, alpha: float, seed: int, net: str = "model"
) -> None:
    """Give each linear layer named in ``layers`` a change of rank ``rank``, zero at first.

    The new weights are ``<net>.<layer>.lora_a`` and ``.lora_b``; the others keep their names. Raises BadInput where a
    layer is not linear or has LoRA already, or ``rank`` is below 1.
    """
    for layer in layers:
        linear = linear_layer(nets[net], layer)
        if isinstance(linear, LoraLinear):
            raise BadInput(f"layer {layer!r} has LoRA already; merge_lora comes first")
        if rank < 1:
            raise BadInput(f"LoRA of rank {rank} on layer {layer!r}; give 1 or more")
        put_layer(nets, layer, LoraLinear(linear, rank, alpha, mix(seed, layer)), net)


@surgery
def merge_lora(nets: MutableMapping[str, nn.Module], *, net: str = "model") -> None:
    """Put every change into the weight it stands beside; the network has its first architecture again."""
    found = lora_layers(nets[net])
    if not found:
        raise BadInput(f"the network {net!r} has no layer with LoRA; add_lora comes first")
    for name, layer in found.items():
        put_layer(nets, name, layer.merged(), net)
