"""Numbers and names as people read them; the same in tables, reasons and reports."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def number(value: float | None, unit: str, request: Mapping[str, Any]) -> str:
    """A figure in its unit: shares and accuracies in percent, the rest with as many digits as tell."""
    if value is None:
        return "–"
    if in_percent(unit, request):
        return f"{100 * value:z.1f}"
    if unit == "points":
        return f"{100 * value:+.1f}"
    if unit == "p" and 0 < value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if unit in ("auc", "nats", "similarity", "p") or abs(value) < 1 else f"{value:.4g}"


def agreed(values: Sequence[float], unit: str, request: Mapping[str, Any]) -> tuple[str, str]:
    """Mean and standard deviation of two figures or more; a spread has no direction, so it has no plus."""
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    return number(mean, unit, request), number(spread, "share" if unit == "points" else unit, request)


def in_percent(unit: str, request: Mapping[str, Any]) -> bool:
    """Whether figures of this unit are shares, and shown times 100."""
    return unit == "share" or (unit == "task" and bool(request["higher"]))


def sign(unit: str, request: Mapping[str, Any]) -> str:
    """What is put behind a figure in a sentence."""
    return {"nats": " nats", "points": " points"}.get(unit, "%" if in_percent(unit, request) else "")


def said(figure: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """What a figure is, with the task's own word where it is the task's figure."""
    says = str(figure["says"])
    return f"{request['figure']} {says}" if figure["unit"] == "task" else says


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of words in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(w.rjust(n) for w, n in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )
