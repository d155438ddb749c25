"""What the charts of a continual comparison show: their data, apart from how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oblivio.audits.continual.comparison import JOINT, NAIVE, Comparison, Outcome
from oblivio.audits.report.charts import Absent, Chart, Lines, Series
from oblivio.data.history import History, Mean, interval

KINDS = {JOINT: "reference", NAIVE: "control"}
TASKS = 6  # that have a chart each
METHODS = 7  # beside joint and naive, that a chart of lines has room for
POINTS = 300  # of a trace that a chart shows
SURE = 1.96  # standard errors on each side that hold the value in 95 of 100 samples
BAND = "Bands: 95% intervals over seeds."


@dataclass(frozen=True)
class Heat(Chart):
    """A matrix: ``values[t][i]``, None where nothing is shown; ``rows`` and ``columns`` name its places."""

    values: Sequence[Sequence[float | None]]
    rows: Sequence[str]
    columns: Sequence[str]
    percent: bool


@dataclass(frozen=True)
class Traces(Lines):
    """Curves with many points and vertical lines at the ``switches`` between tasks."""

    switches: Sequence[float] = ()


def charts(of: Comparison, scenario: str) -> list[Chart]:
    """Every chart of a scenario in the page's order."""
    return [average(of, scenario), *tasks(of, scenario), *traces(of, scenario), *matrices(of, scenario),
            *probes(of, scenario), *memory(of, scenario)]  # fmt: skip


def average(of: Comparison, scenario: str) -> Chart:
    """Average accuracy over the tasks so far, after every experience."""
    higher = _history(of, scenario).higher
    series = [_series(m, [_averages(o) for o in of.of(scenario, m)], higher) for m in _shown(of, scenario)]
    read = (f"The mean over the tasks so far, after each experience. Joint training learned all of them at once: its "
            f"line is where it ends. {BAND}")  # fmt: skip
    return _lines(of, scenario, "average", "Average over the tasks so far", read, series)


def tasks(of: Comparison, scenario: str) -> list[Chart]:
    """Every task's figure from the experience that brought it on; of many tasks the first few."""
    higher, found = _history(of, scenario).higher, []
    for i in range(min(len(_history(of, scenario).tasks) - 1, TASKS)):
        series = [_series(m, [_since(o, i) for o in of.of(scenario, m)], higher) for m in _shown(of, scenario)]
        title = f"Task {i + 1}, in order of learning"
        read = f"From the experience that brought it to the end of the stream. {BAND}"
        found.append(_lines(of, scenario, f"task-{i}", title, read, [s for s in series if s.x]))
    return found


def _averages(of: Outcome) -> dict[int, float]:
    """ACC_t by turn."""
    matrix, seen, found = of.history.matrix, [], {}
    for row, record in zip(matrix, (r for r in of.history.records if r["turn"] > 0), strict=True):
        seen += [task for task in record["learned"] if task not in seen]
        found[int(record["turn"])] = float(row[seen].mean())
    return found


def _since(of: Outcome, place: int) -> dict[int, float]:
    """The figure on the task that came in this place, by turn, since it came."""
    order = of.history.order
    if place >= len(order):
        return {}
    task = order[place]
    records = [r for r in of.history.records if r["turn"] > 0]
    first = next(n for n, r in enumerate(records) if task in r["learned"])
    return {int(r["turn"]): float(r["figures"]["served"][task]) for r in records[first:]}


def _series(method: str, runs: Sequence[Mapping[int, float]], percent: bool) -> Series:
    """Mean and interval over seeds at the turns that all have."""
    common = [turn for turn in runs[0] if all(turn in run for run in runs)]
    means = [interval([run[turn] for run in runs]) for turn in common]
    return banded(method, common, means, percent)


def banded(name: str, x: Sequence[Any], means: Sequence[Mean], percent: bool) -> Series:
    """A line with its intervals, where there are any. None of what is drawn lies below 0, and no share above 1."""
    kind, y = KINDS.get(name, "outcome"), [m.mean for m in means]
    low, high = [m.low for m in means if m.low is not None], [m.high for m in means if m.high is not None]
    if not means or len(low) < len(means):
        return Series(name, kind, list(x), y)
    most = 1.0 if percent else math.inf
    return Series(name, kind, list(x), y, [max(v, 0.0) for v in low], [min(v, most) for v in high])


def _lines(of: Comparison, scenario: str, name: str, title: str, read: str, series: Sequence[Series]) -> Chart:
    """A chart over turns, joint training drawn from the first turn to the last."""
    history = _history(of, scenario)
    turns = sorted({turn for s in series for turn in s.x if s.name != JOINT})
    flat = [_flat(s, turns) if s.name == JOINT and len(s.x) == 1 else s for s in series]
    unit = _unit(history)
    return Lines(f"{scenario}-{name}", title, read, "experiences learned", unit, history.higher, flat, [])


def _history(of: Comparison, scenario: str) -> History:
    """Any of the scenario's: what is measured is the same in all."""
    return of.of(scenario, NAIVE)[0].history


def _unit(history: History) -> str:
    return f"{history.figure}, %" if history.higher else history.figure


def _flat(series: Series, turns: Sequence[int]) -> Series:
    ends = [turns[0], turns[-1]]
    return Series(series.name, series.kind, ends, *(list(v) * 2 for v in (series.y, series.low, series.high)))


def _shown(of: Comparison, scenario: str) -> list[str]:
    """Names of the methods with a line: the best by average, and always joint and naive."""
    methods = of.methods(scenario)
    sign = 1 if _history(of, scenario).higher else -1

    def height(method: str) -> float:
        found = of.figure(scenario, method, "acc")
        return -math.inf if found is None else sign * found.mean

    best = sorted((m for m in methods if m not in KINDS), key=height, reverse=True)[:METHODS]
    return [method for method in methods if method in best or method in KINDS]


# --- matrices


def matrices(of: Comparison, scenario: str) -> list[Chart]:
    """The matrix of every method, the mean over seeds."""
    return [_matrix(of, scenario, method) for method in of.methods(scenario) if method != JOINT]


def _matrix(of: Comparison, scenario: str, method: str) -> Chart:
    outcomes = of.of(scenario, method)
    title, name = f"Matrix of {method}", f"{scenario}-matrix-{_slug(of, scenario, method)}"
    tables = [o.history.matrix[:, o.history.order] for o in outcomes]
    if len({t.shape for t in tables}) > 1 or not tables[0].size:
        return Absent(name, title, "Its runs have not the same number of experiences.")
    mean = np.mean(tables, axis=0)
    brought = [r["learned"] for r in outcomes[0].history.records if r["turn"] > 0]
    seen = [len({task for tasks in brought[: t + 1] for task in tasks}) for t in range(len(mean))]
    values = [[float(v) if i < n else None for i, v in enumerate(row)] for row, n in zip(mean, seen, strict=True)]
    read = (f"Row: experiences learned. Column: the task tested, in order of learning. The diagonal is what was "
            f"learned; a column that fades downwards is forgotten. Mean over {_seeds(len(outcomes))}.")  # fmt: skip
    rows, columns = ([str(i + 1) for i in range(n)] for n in mean.shape)
    return Heat(name, title, read, values, rows, columns, outcomes[0].history.higher)


def _slug(of: Comparison, scenario: str, method: str) -> str:
    """A name for an id: what a method is called may not be one."""
    return str(of.methods(scenario).index(method))


def _seeds(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"


# --- traces


def traces(of: Comparison, scenario: str) -> list[Chart]:
    """Accuracy on the first tasks, step by step, of every method that was traced."""
    found: list[Chart] = []
    for place, word in enumerate(("first", "second")):
        series: list[Series] = []
        switches: list[float] = []
        for method in _shown(of, scenario):
            one = of.of(scenario, method)[0]
            if (line := _line(one, place)) is not None:
                series.append(_trace(method, *line))
                switches = switches if method == JOINT else _switches(one)
        if not series or all(s.name == JOINT for s in series):
            continue
        history = _history(of, scenario)
        read = (
            f"On the {word} task, evaluated during training; vertical lines are where tasks change. A dip after a line "
            "that recovers is the stability gap. One run of each method, for dips would smear in a mean over seeds; "
            "bands: 95% intervals from its sample of test rows."
        )
        unit = _unit(history)
        found.append(Traces(f"{scenario}-trace-{place}", f"Stability gap, {word} task", read, "steps", unit,
                            history.higher, series, [], switches))  # fmt: skip
    return found


def _line(of: Outcome, place: int) -> tuple[list[int], Any, Any] | None:
    traced = of.history.traced
    if traced is None or place >= len(of.history.order) or not traced.points:
        return None
    task = of.history.order[place]
    steps, values = traced.line(task)
    return steps, values, traced.line(task, "errors")[1]


def _trace(method: str, steps: Sequence[int], y: Any, errors: Any) -> Series:
    keep = thinned(y)
    ends = [[float(v[i]) for i in keep] for v in (y, y - SURE * errors, y + SURE * errors)]
    return Series(method, KINDS.get(method, "outcome"), [steps[i] for i in keep], *ends)


def thinned(y: Any, most: int = POINTS) -> list[int]:
    """Places of at most about ``most`` values: of each stretch the lowest and the highest, so that no dip is lost."""
    if len(y) <= most:
        return list(range(len(y)))
    stretches = np.array_split(np.arange(len(y)), most // 2)
    extremes = {int(at[f(y[at])]) for at in stretches for f in (np.argmin, np.argmax)}
    return sorted({0, len(y) - 1, *extremes})


def _switches(of: Outcome) -> list[float]:
    """Steps at which a task ended and another began."""
    traced = of.history.traced
    return [] if traced is None else [float(traced.steps[n]) for n in traced.ends[:-1]]


# --- plasticity and memory


PROBES = {
    "dead": ("Dead units", "units", "Units that no row makes active", True),
    "effective_rank": (
        "Rank of the features",
        "effective rank",
        "exp(entropy of the singular values)",
        False,
    ),
    "weight_size": ("Size of the weights", "mean of |w|", "Of matrices and filters", False),
    "fresh": ("A task that is new", "accuracy", "On its test rows, after a fixed number of steps", True),
}


def probes(of: Comparison, scenario: str) -> list[Chart]:
    """Plasticity after every experience, where it was probed."""
    found: list[Chart] = []
    for name, (title, unit, words, percent) in PROBES.items():
        series = []
        for method in _shown(of, scenario):
            runs = [{t + 1: each[name] for t, each in enumerate(o.probes) if name in each}
                    for o in of.of(scenario, method)]  # fmt: skip
            if method != JOINT and all(runs):
                series.append(_series(method, runs, percent))
        if series:
            read, y = f"{words}. {BAND}", f"{unit}{', %' * percent}"
            found.append(Lines(f"{scenario}-{name}", title, read, "experiences learned", y, percent, series, []))
    return found


def memory(of: Comparison, scenario: str) -> list[Chart]:
    """Average accuracy against the budget of memory, where more than one was compared."""
    budgets = of.budgets(scenario)
    if len(budgets) < 2:
        return []
    history, series = _history(of, scenario), []
    for method in of.methods(scenario):
        mine = [b for b in budgets if method in of.methods(scenario, b)]
        means = [m for b in mine if (m := of.figure(scenario, method, "acc", b)) is not None]
        if mine and len(means) == len(mine):
            series.append(banded(method, [b / 1024 for b in mine], means, history.higher))
    for line in (JOINT, NAIVE):
        mean = of.figure(scenario, line, "acc")
        if mean is not None and line not in {s.name for s in series}:
            series.append(banded(line, [budgets[0] / 1024, budgets[-1] / 1024], [mean, mean], history.higher))
    return [Lines(f"{scenario}-memory", "At equal memory", f"Average over all tasks at the end. {BAND}",
                  "KiB carried between tasks", _unit(history), history.higher, series, [])]  # fmt: skip
