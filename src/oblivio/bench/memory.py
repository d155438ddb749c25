"""The most bytes that tensors held at one moment, counted and not estimated."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """While it is on, every operation's results are booked, and struck off when their storage is freed.

    Counted are storages, so that a view costs nothing and a storage that anything still holds (a graph, an optimiser,
    a cache) counts in full. The work space inside one operation is not a tensor and is not counted. The count is the
    same at every run, whatever the allocator does.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, int] = {}
        self._book(held)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._book(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out

    def _book(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                self._known[key] = storage.nbytes()
                self.live += storage.nbytes()
                weakref.finalize(storage, self._strike, key)
        self.peak = max(self.peak, self.live)

    def _strike(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)


def peak(work: Any, held: Iterable[Tensor] = ()) -> int:
    """The peak of live tensor bytes while ``work()`` runs, ``held`` being there at the start."""
    with torch.enable_grad(), Peak(held) as count:
        work()
    return count.peak
