"""Weights of which every process holds a shard only, by torch's ``fully_shard``, and what is different for them.

A network gathers the weights of one block at a time, in the forward and again in the backward. So weights must lie in
their places from the one to the other, gradients arrive at the weights themselves, added up over the processes, and
every process has to make the same passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def is_sharded(value: Any) -> bool:
    """Whether it is a DTensor. It is known by its method: importing that class takes most of a second."""
    return hasattr(value, "full_tensor")


def whole(value: Tensor) -> Tensor:
    """All of a sharded tensor, on every process, each of which must ask; others as they are."""
    return value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """All of every tensor, one after the other, on those processes that ``keep`` them; each of them must ask."""
    all_of = ((name, whole(value)) for name, value in tensors.items())
    return {name: value.cpu() for name, value in all_of if keep}


def alike(value: Tensor, weight: Tensor) -> Tensor:
    """This process's shard of ``value``, which all of them have, where ``weight`` is sharded; else as given."""
    if is_sharded(value) or not is_sharded(weight) or value.shape != weight.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, places = weight.device_mesh, weight.placements  # type: ignore[attr-defined]
    return distribute_tensor(value.to(weight.device), mesh, places, src_data_rank=None)


@contextlib.contextmanager
def placed(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """While inside, ``values`` lie in the places of the weights of these names; afterwards their bits are back."""
    kept = {name: weights[name].detach().clone() for name in values}
    with torch.no_grad():
        for name, value in values.items():
            weights[name].copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                weights[name].copy_(value)
