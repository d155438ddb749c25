"""What several seeds say: mean with a 95% t-interval, and differences of methods paired by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oblivio.core.errors import BadInput

LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """The mean of ``number`` values and half the width of its interval; None where one value shows no spread."""

    mean: float
    half: float | None
    number: int

    @property
    def low(self) -> float | None:
        """The lower end."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """The upper end."""
        return None if self.half is None else self.mean + self.half


def interval(values: Sequence[float], level: float = LEVEL) -> Mean:
    """Mean and Student's t-interval of values of independent seeds.

    Raises:
        BadInput: no values, or one that is not finite: a run that failed is said so, not averaged.

    >>> interval([1.0, 2.0, 3.0]).mean
    2.0
    """
    from scipy.stats import t

    if not values or not all(map(math.isfinite, values)):
        raise BadInput(f"no interval of {list(values)}: it needs values, all of them finite")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Mean(mean, None, 1)
    half = float(t.ppf((1 + level) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Mean(mean, half, n)


def paired(a: Mapping[Any, float], b: Mapping[Any, float], level: float = LEVEL) -> Mean:
    """The mean of a - b over the seeds that both have, with its interval; what seeds share cancels.

    Raises:
        BadInput: no seed in common.
    """
    common = sorted(a.keys() & b.keys())
    if not common:
        raise BadInput(f"no seed in common: {sorted(a)} and {sorted(b)}")
    return interval([a[seed] - b[seed] for seed in common], level)
