"""In which orders a shard's slices are learned, and what of an order outlives a deletion."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

import numpy as np

from oblivio.core.errors import BadInput

Order: TypeAlias = tuple[int, ...]
DELETIONS = 100  # t of a prefix's score: how many deletions it should outlive


def prefix(order: Sequence[int], touched: Collection[int]) -> int:
    """How many slices of ``order`` come before the first of ``touched``: the stages that never saw those."""
    return next((i for i, piece in enumerate(order) if piece in touched), len(order))


def rotations(slices: int, budget: int) -> list[Order]:
    """``budget`` orders for deletions that fall on all slices alike: cyclic rotations, each led by another slice.

    Fewer than ``slices`` are spread evenly; of more, the next ones keep the leaders and rotate what follows, up to
    ``slices * (slices - 1)``, after which they would repeat.
    """
    if not 1 <= budget <= max(slices * (slices - 1), 1):
        raise BadInput(
            f"orders: {budget} rotations of {slices} slices; from 1 to {max(slices * (slices - 1), 1)} differ"
        )
    found = []
    for b in range(budget):
        lead = b * slices // budget if budget < slices else b % slices
        first, *rest = [(lead + i) % slices for i in range(slices)]
        turn = b // slices
        found.append((first, *rest[turn:], *rest[:turn]))
    return found


def matched(rates: Sequence[float], budget: int) -> list[Order]:
    """``budget`` orders for slices with known shares of all deletions, ``rates``, which add up to at most 1.

    One order a slice is grown, a place at a time: which order takes which slice next is the matching that maximises
    the sum of their scores. A prefix scores ``sum_l l (1 - q_1 - ... - q_l)^t`` with t = 100, ``q_i`` the rate of its
    i-th slice. Of the grown orders those of the highest score are taken.

    Raises:
        BadInput: more orders than slices; rates below 0, or of a sum above 1.
    """
    from scipy.optimize import linear_sum_assignment

    q, slices = np.asarray(rates, dtype=float), len(rates)
    if not 1 <= budget <= slices:
        raise BadInput(f"orders: {budget} for {slices} slices; known rates give one order a slice at most")
    if (q < 0).any() or q.sum() > 1 + 1e-9:
        raise BadInput(f"rates: {list(rates)} must be shares of all deletions: 0 or more, with a sum of at most 1")
    orders: list[list[int]] = [[] for _ in range(slices)]
    for place in range(slices):
        gain = np.full((slices, slices), -1.0 * slices**3)  # of a slice that the order has: never taken
        for i, order in enumerate(orders):
            for j in set(range(slices)).difference(order):
                gain[i, j] = (place + 1) * max(1 - q[[*order, j]].sum(), 0.0) ** DELETIONS
        for order, j in zip(orders, linear_sum_assignment(gain, maximize=True)[1], strict=True):
            order.append(int(j))
    scores = [_score(q[order]) for order in orders]
    best = sorted(range(slices), key=lambda i: (-scores[i], i))[:budget]
    return [tuple(orders[i]) for i in best]


def _score(rates: np.ndarray) -> float:
    """Of a whole order, from the rates of its slices."""
    left = np.maximum(1 - np.cumsum(rates), 0.0)
    return float((np.arange(1, len(rates) + 1) * left**DELETIONS).sum())
