"""gcn: two graph convolutions (Kipf and Welling, 2017) with ReLU, and a linear layer; for nodes of a graph."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import nn

from oblivio.networks._graph import Head, Messages, columns, layer

TAKES = "graph"


def build(
    inputs: tuple[PositiveInt, ...],
    outputs: PositiveInt,
    *,
    hidden: tuple[PositiveInt, PositiveInt] = (64, 32),
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
) -> nn.Module:
    """Features (nodes, columns) and edges (2, edges) to (nodes, outputs); ``hidden`` are the widths of the layers."""
    conv, (a, b) = layer("GCNConv"), hidden
    return Messages(conv(columns(inputs, "gcn"), a), conv(a, b), Head(b, outputs), dropout)
