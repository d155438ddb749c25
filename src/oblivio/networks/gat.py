"""gat: two layers of graph attention (Velickovic et al., 2018) with ReLU, and a linear layer; for nodes of a graph."""

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
    hidden: tuple[PositiveInt, PositiveInt] = (8, 32),
    heads: PositiveInt = 8,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
) -> nn.Module:
    """Features (nodes, columns) and edges (2, edges) to (nodes, outputs).

    ``hidden`` are the widths of the layers, the first of each of its ``heads``, which are joined.
    """
    conv, (a, b) = layer("GATConv"), hidden
    return Messages(conv(columns(inputs, "gat"), a, heads=heads), conv(a * heads, b), Head(b, outputs), dropout)
