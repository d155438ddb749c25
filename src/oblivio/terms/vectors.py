"""Gradients as rows of one matrix, for rules that weigh several against each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oblivio.core.grads import Grads

SMALLEST = 1e-30  # of a squared norm that is divided by: a gradient of zero opposes nothing


def stacked(grads: Sequence[Grads], weights: Grads) -> Tensor:
    """One gradient a row, over the entries of ``weights`` in their order, in float64; zeros where it has none."""
    return torch.stack([torch.cat([_entries(g, n, w) for n, w in weights.items()]) for g in grads])


def _entries(g: Grads, name: str, weight: Tensor) -> Tensor:
    return g[name].detach().flatten().double() if name in g else weight.new_zeros(weight.numel(), dtype=torch.double)


def shaped(row: Tensor, weights: Grads) -> Grads:
    """A row of such a matrix as a gradient again."""
    pieces = row.split([w.numel() for w in weights.values()])
    return {n: piece.view_as(w).to(w.dtype) for (n, w), piece in zip(weights.items(), pieces, strict=True)}
