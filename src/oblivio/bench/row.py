"""One figure with its limit, and the table of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """A figure that may be at most ``limit``.

    Attributes:
        name: what is measured.
        limit: in ``unit``; ``x`` is a ratio of times or sizes.
        repeats: the figure of every repeat; their median is what counts.
        note: against what, and how it was measured.
        noise: the bare loop against itself, one ratio a repeat; empty where nothing is timed.
    """

    name: str
    limit: float
    repeats: list[float]
    note: str = ""
    unit: str = "x"
    noise: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.repeats)

    @property
    def passed(self) -> bool:
        """Whether the value is at most the limit; NaN is not."""
        return self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        """The row as it is written: name, value, unit, limit, pass, repeats, noise, note."""
        words = {"name": self.name, "value": self.value, "unit": self.unit, "limit": self.limit, "pass": self.passed}
        return {**words, "repeats": self.repeats, "noise": self.noise, "note": self.note}


def table(rows: list[Row], header: bool = True) -> Table:
    """Rows to be printed: the median, its range over the repeats, the noise floor, the limit, the verdict."""
    columns = ("what", "median", "range", "bare to itself", "limit", "")
    shown = Table(*columns, box=None, pad_edge=False, show_header=header)
    for row in rows:
        spread = f"{min(row.repeats):.4g} to {max(row.repeats):.4g}" if len(row.repeats) > 1 else ""
        noise = f"{min(row.noise):.3f} to {max(row.noise):.3f}" if row.noise else ""
        value, limit = (f"{v:,.4g} {row.unit}" if v < 1000 else f"{v:,.0f} {row.unit}" for v in (row.value, row.limit))
        verdict = "ok" if row.passed else "[red]misses"
        shown.add_row(f"{row.name}\n[dim]{row.note}", value, spread, noise, limit, verdict)
    return shown
