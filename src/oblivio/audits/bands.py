"""Where one more model of the same making would lie: the prediction interval of a few figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

LEVEL = 0.95


@dataclass(frozen=True)
class Band:
    """From ``low`` to ``high``, both inside; ``mean`` and ``spread`` (standard deviation) of ``number`` figures."""

    low: float
    high: float
    mean: float
    spread: float
    number: int

    def outside(self, value: float, side: str) -> bool:
        """Whether ``value`` is off on the side that counts: ``high``, ``low`` or ``both``."""
        return (side != "low" and value > self.high) or (side != "high" and value < self.low)

    def within(self, least: float, most: float) -> Band:
        """The same, no wider than figures can lie."""
        return replace(self, low=max(self.low, least), high=min(self.high, most))


def band(values: Sequence[float], tolerance: float, level: float = LEVEL) -> Band:
    """The interval in which one more figure lies with probability ``level``, never narrower than ``tolerance``.

    Of k values with mean m and standard deviation s it is ``m ± t(k-1) s sqrt(1 + 1/k)``, which takes them for draws
    from one normal distribution. ``tolerance`` is the least half width. ValueError for fewer than two values, of which
    no spread is known.
    """
    from scipy.stats import t

    k = len(values)
    mean, spread = statistics.fmean(values), statistics.stdev(values) if k > 1 else math.nan
    if k < 2:
        raise ValueError("a band needs two values or more")
    half = max(tolerance, float(t.ppf((1 + level) / 2, k - 1)) * spread * math.sqrt(1 + 1 / k))
    return Band(mean - half, mean + half, mean, spread, k)


def around(centre: float, tolerance: float) -> Band:
    """The interval of ``tolerance`` about a fixed aim, such as chance or the original's figure."""
    return Band(centre - tolerance, centre + tolerance, centre, 0.0, 0)
