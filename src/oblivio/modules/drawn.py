"""Layers drawn from a generator of their own, so that a surgery leaves torch's default generator alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def drawn_linear(inputs: int, outputs: int, rng: torch.Generator) -> nn.Linear:
    """A linear layer with weights as torch initialises them: uniform within 1 / sqrt(inputs)."""
    layer, bound = nn.Linear(inputs, outputs, device="meta"), inputs**-0.5

    def drawn(*shape: int) -> nn.Parameter:
        values: Tensor = torch.empty(shape).uniform_(-bound, bound, generator=rng)
        return nn.Parameter(values)

    layer.weight, layer.bias = drawn(outputs, inputs), drawn(outputs)
    return layer
