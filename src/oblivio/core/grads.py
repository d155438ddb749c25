"""Grads: gradients, or any other values, by weight name; and the little algebra that rules and edits need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oblivio.core.shards import alike, whole

Grads = dict[str, Tensor]


def add(a: Grads, b: Grads, scale: float | Tensor = 1.0) -> Grads:
    """``a + scale * b``; a name that one of them lacks counts as zero there."""
    out = dict(a)
    for name, value in b.items():
        out[name] = out[name] + scale * value if name in out else scale * value
    return out


def dot(a: Grads, b: Grads) -> Tensor:
    """The inner product over the names both have."""
    return sum((whole((a[k] * b[k]).sum()) for k in a if k in b), start=torch.zeros(()))


def norm(a: Grads) -> Tensor:
    """The Euclidean norm over all names together."""
    return torch.stack([whole(v.norm()) for v in a.values()]).norm() if a else torch.zeros(())


def top(values: Grads, fraction: float) -> Grads:
    """Boolean masks of the ``fraction`` of entries that are largest, ranked over all names at once.

    Ties at the threshold go to the first in order, so that exactly ``floor(fraction * n)`` are chosen. What is sharded
    is put together for that, and so are the masks.
    """
    flat = torch.cat([whole(v).flatten() for v in values.values()])
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[torch.sort(flat, descending=True, stable=True).indices[: int(fraction * flat.numel())]] = True
    pieces = chosen.split([v.numel() for v in values.values()])
    return {k: m.view_as(v) for (k, v), m in zip(values.items(), pieces, strict=True)}


def like(value: Any, weight: Tensor) -> Any:
    """A tensor of the weight's shape in its memory layout, which fused optimisers take for granted; else as given.

    Where the weight is sharded, so is what comes back.
    """
    if isinstance(value, Tensor):
        value = alike(value, weight)
    if not isinstance(value, Tensor) or value.stride() == weight.stride() or value.shape != weight.shape:
        return value
    return torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)
