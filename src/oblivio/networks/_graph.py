"""What the networks on graphs share: two layers of messages, and a linear layer on every node by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.data.extras import need


class Head(nn.Linear):
    """A linear layer of a type of its own: a row may read several of its outputs, so no rule for one applies."""


class Messages(nn.Module):
    """Features (nodes, columns) and edges (2, edges), each in both directions, to every node's outputs."""

    def __init__(self, first: nn.Module, second: nn.Module, head: Head, dropout: float) -> None:
        super().__init__()
        self.first, self.second, self.head, self.dropout = first, second, head, dropout

    def forward(self, x: Tensor, edge_index: Tensor, nodes: Tensor | None = None) -> Tensor:
        """Of ``nodes`` alone, where they are given, so that the head sees a row for each of them.

        Dropout follows either layer of messages, in training mode alone.
        """
        for layer in (self.first, self.second):
            x = F.dropout(F.relu(layer(x, edge_index)), self.dropout, self.training)
        out: Tensor = self.head(x if nodes is None else x[nodes])
        return out


def layer(name: str) -> Callable[..., Any]:
    """A layer of PyTorch Geometric by its name. Raises BadInput, which names the extra, where it is not installed."""
    made: Callable[..., Any] = getattr(need("torch_geometric.nn", "graph"), name)
    return made


def columns(inputs: tuple[int, ...], name: str) -> int:
    """The number of features of a node. Raises BadInput for anything but (columns,)."""
    if len(inputs) != 1:
        raise BadInput(f"{name} takes nodes with columns of features, inputs (columns,); these are {inputs}")
    return inputs[0]
