"""AUC by ranks, its variance, and its mean over strata."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from oblivio.audits.probe import Value, Z


def counts(rows: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """For every row, how many of ``among`` are less than it, and how many are not more; both of shape (rows,).

    Raises:
        ValueError: NaN, which has no rank.
    """
    if rows.isnan().any() or among.isnan().any():
        raise ValueError("scores that are not numbers cannot be ranked")
    ordered = among.sort().values
    return torch.searchsorted(ordered, rows), torch.searchsorted(ordered, rows, right=True)


def placements(rows: Tensor, among: Tensor) -> Tensor:
    """The share of ``among`` that each row exceeds, a tie counted as half; shape (rows,)."""
    less, upto = counts(rows, among)
    return (less + upto).double() / (2 * len(among))


def auc(positives: Tensor, negatives: Tensor) -> tuple[float, float]:
    """The probability that a positive exceeds a negative, a tie counted as half, and the variance of its estimate.

    The variance is that of DeLong, DeLong and Clarke-Pearson (1988), from the placements of either side among the
    other. It is 0 where all positives exceed all negatives.

    Args:
        positives: scores, shape (m,), m at least 1.
        negatives: scores, shape (n,), n at least 1.
    """
    ours, theirs = placements(positives, negatives), placements(negatives, positives)
    return float(ours.mean()), _of_mean(ours) + _of_mean(theirs)


def _of_mean(shares: Tensor) -> float:
    """Variance of the mean; of a single share the greatest that is possible, since it shows none of its own."""
    return float(shares.var()) / len(shares) if len(shares) > 1 else 0.25


def stratified(strata: Iterable[tuple[float, Tensor, Tensor]]) -> Value:
    """The mean of the AUC within each stratum, with its normal interval.

    Args:
        strata: of each its weight, and scores of positives and negatives; weights sum to 1.
    """
    found = [(weight, *auc(ours, theirs), len(ours) + len(theirs)) for weight, ours, theirs in strata]
    mean = sum(weight * value for weight, value, _, _ in found)
    off = Z * math.sqrt(sum(weight**2 * variance for weight, _, variance, _ in found))
    return Value(mean, max(0.0, mean - off), min(1.0, mean + off), sum(rows for *_, rows in found))
