"""The standing of methods on a problem: mean and 95% interval over seeds, rank, cost; as JSON, a table and a figure."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = {"forget": "forget", "affected": "affected", "kept": "test", "mia_lira": "LiRA", "linear_probe": "probe",
         "relearning": "relearn"}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One method: figures, a value a seed; ``distance`` as ``comparison.distance`` has it, ``cost`` of retraining."""

    name: str
    words: Sequence[str]
    distance: Sequence[float]
    cost: Sequence[float]
    seconds: Sequence[float]
    figures: Mapping[str, Sequence[float]]
    stopped: Sequence[str] = ()

    @property
    def accepted(self) -> int:
        """Of how many seeds the audit accepted it."""
        return sum(word == "ACCEPTED" for word in self.words)


@dataclass(frozen=True)
class Standing:
    """All lines, best first: by distance, then by cost. ``made``: how often each shared pass was made, a seed each."""

    problem: str
    lines: Sequence[Line]
    original: Line
    references: Sequence[Line]
    refused: Mapping[str, str]
    made: Sequence[Sequence[Any]]

    def to_json(self) -> dict[str, Any]:
        """As it is committed."""
        return {
            "problem": self.problem,
            "methods": {line.name: {"rank": n, **_numbers(line)} for n, line in enumerate(self.lines, 1)},
            "original": _numbers(self.original),
            "references": [_numbers(line) for line in self.references],
            "refused": dict(self.refused),
            "passes made once": [list(each) for each in self.made],
        }


def standing(problem: str, seeds: Sequence[Mapping[str, Any]]) -> Standing:
    """From what each seed found."""
    names = list(seeds[0]["methods"])
    lines = [_line(name, [seed["methods"][name] for seed in seeds]) for name in names]
    lines.sort(key=lambda line: (_mean(line.distance), _mean(line.cost)))
    count = len(seeds[0]["references"])
    references = [_line(f"retrained {i + 1}", [seed["references"][i] for seed in seeds]) for i in range(count)]
    made = [[n, *each] for n, seed in enumerate(seeds) for each in seed["made"]]
    return Standing(
        problem, lines, _line("original", [seed["original"] for seed in seeds]), references, seeds[0]["refused"], made
    )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95% interval by Student's t; NaN where there is no spread to be known.

    >>> interval([1.0, 2.0, 3.0])[0]
    2.0
    """
    from scipy.stats import t

    values = [value for value in values if not math.isnan(value)]
    if len(values) < 2:
        return _mean(values), math.nan
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), half


def heads(of: Standing) -> list[str]:
    """Of the columns of ``rows``."""
    return ["method", "rank", "accepted", "distance", *(SHOWN[name] for name in _shown(of)), "% of retraining"]


def rows(of: Standing) -> list[list[str]]:
    """All methods, best first, then the original and the references; mean ± half width of the 95% interval."""
    lines = [_cells(line, _shown(of), str(rank)) for rank, line in enumerate(of.lines, 1)]
    known = [_cells(line, _shown(of)) for line in (of.original, *of.references)]
    return [*lines, *([name, "", "", *rest] for name, _, _, *rest in known)]


def _shown(of: Standing) -> list[str]:
    return [name for name in SHOWN if name in of.original.figures]


def _cells(line: Line, shown: Sequence[str], rank: str = "") -> list[str]:
    if not line.words:
        return [line.name, rank, "stopped", "", *("" for _ in shown), ""]
    figures = [said(line.figures.get(name, ()), 2) for name in shown]
    cost = f"{100 * statistics.fmean(line.cost):.1f}" if line.cost else ""
    return [line.name, rank, f"{line.accepted} of {len(line.words)}", said(line.distance, 2), *figures, cost]


def said(values: Sequence[float], digits: int) -> str:
    """Mean and half width of the interval, as ``0.12±0.03``."""
    mean, half = interval(values)
    if math.isnan(mean) or math.isinf(mean):
        return "–"
    return f"{mean:.{digits}f}" if math.isnan(half) else f"{mean:.{digits}f}±{half:.{digits}f}"


def svg(of: Standing) -> str:
    """Distance and cost of every method, best at the top, as a drawing that stands alone."""
    import matplotlib
    from matplotlib.figure import Figure

    lines = [line for line in of.lines if line.words][::-1]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "oblivio", "font.size": 9}):
        figure = Figure(figsize=(8, 1.2 + 0.22 * len(lines)))
        left, right = figure.subplots(1, 2, sharey=True)
        for place, line in enumerate(lines):
            mean, half = interval(line.distance)
            colour = "#009e73" if line.accepted == len(line.words) else "#d55e00" if not line.accepted else "#e69f00"
            left.errorbar(mean, place, xerr=0 if math.isnan(half) else half, fmt="o", color=colour, markersize=4)
            right.plot(100 * _mean(line.cost), place, "s", color="#0072b2", markersize=4)
        left.set_yticks(range(len(lines)), [line.name for line in lines])
        left.set_xscale("symlog", linthresh=1)
        left.set_xlim(left=-0.1)
        left.set_xlabel("distance, in tolerances\n(green: always accepted, red: never)")
        right.set_xscale("log")
        right.set_xlabel("rows forwarded, % of one retraining")
        for axes in (left, right):
            axes.grid(alpha=0.2)
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(f"{of.problem}: mean and 95% interval over {len(lines[0].words) if lines else 0} seeds")
        figure.tight_layout()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return file.getvalue()


def _line(name: str, seeds: Sequence[Mapping[str, Any]]) -> Line:
    done = [seed for seed in seeds if "word" in seed]
    names = dict.fromkeys(figure for seed in done for figure in seed["figures"])
    return Line(
        name, [seed["word"] for seed in done], [seed["distance"] for seed in done],
        [seed["of_retraining"] for seed in done if "of_retraining" in seed],
        [seed["seconds"] for seed in done if "seconds" in seed],
        {figure: [seed["figures"][figure] for seed in done if figure in seed["figures"]] for figure in names},
        [seed["stopped"] for seed in seeds if "stopped" in seed],
    )  # fmt: skip


def _numbers(line: Line) -> dict[str, Any]:
    figures = {name: [round(value, 5) for value in values] for name, values in line.figures.items()}
    made = {"words": list(line.words), "distance": [round(d, 4) for d in line.distance],
            "cost": [round(c, 4) for c in line.cost], "seconds": [round(s, 2) for s in line.seconds],
            "figures": figures}  # fmt: skip
    return made | ({"stopped": list(line.stopped)} if line.stopped else {})


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.inf
