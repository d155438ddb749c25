"""mlp: linear layers with ReLU between them, on flattened images or on the columns of a table."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise

from pydantic import PositiveInt
from torch import nn


def build(
    inputs: tuple[PositiveInt, ...], outputs: PositiveInt, *, hidden: tuple[PositiveInt, ...] = (400, 400)
) -> nn.Module:
    """``(n, *inputs)`` to ``(n, outputs)``; ``hidden`` are the widths between, none for a linear model."""
    widths = [math.prod(inputs), *hidden]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, (before, after) in enumerate(pairwise(widths), 1):
        layers[f"hidden{i}"] = nn.Linear(before, after)
        layers[f"relu{i}"] = nn.ReLU()
    layers["head"] = nn.Linear(widths[-1], outputs)
    return nn.Sequential(layers)
