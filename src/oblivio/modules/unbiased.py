"""A linear layer without its bias: scores that are dot products and nothing else."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from oblivio.core.surgery import surgery
from oblivio.modules.growing import GrownLinear
from oblivio.modules.heads import linear_layer


@surgery
def drop_bias(nets: MutableMapping[str, nn.Module], *, layer: str) -> None:
    """Take the bias off the linear ``layer`` of the model, and off what was grown onto it; it changes the function.

    Outputs that are grown later have none either.
    """
    linear = linear_layer(nets["model"], layer)
    linear.register_parameter("bias", None)
    if isinstance(linear, GrownLinear):
        linear.biases = nn.ParameterList()


def rows(head: nn.Linear) -> Tensor:
    """The weights of all outputs, those grown later behind the others; shape (outputs, inputs)."""
    return torch.cat([head.weight, *head.weights]) if isinstance(head, GrownLinear) else head.weight
