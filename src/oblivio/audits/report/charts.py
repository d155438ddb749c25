"""What every chart of a report shows: its data, from the report's numbers alone, apart from how they are drawn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oblivio.audits.verdict import named
from oblivio.audits.words import in_percent, said

CLASSES = 14  # that a chart of changes has room for
AXES = {"retrained": ("forget", ("retain", "kept")), "chance": ("forget", ("kept",)), "clean": ("affected", ("kept",))}
WHEN = ("before", "after")
SETS = {"members": "retained", "unseen": "unseen", "forgotten": "forgotten"}


@dataclass(frozen=True)
class Chart:
    """What all charts have.

    Attributes:
        id: its name in the page.
        title: what it shows, for those who see it and those who have it read to them.
        read: how to read it.
    """

    id: str
    title: str
    read: str


@dataclass(frozen=True)
class Absent(Chart):
    """A chart that is not drawn, since its data do not apply: ``read`` says why."""


@dataclass(frozen=True)
class Point:
    """A model: its figures on what goes (``x``) and on what stays (``y``)."""

    name: str
    kind: str
    x: float
    y: float


@dataclass(frozen=True)
class Scatter(Chart):
    """What goes against what stays, a point for each model.

    Attributes:
        x, y: what the axes are.
        percent: whether the figures are shares.
        points: the models, in the report's order.
        aim: where on the x axis a model that has forgotten lies; None: that is not known, or more is better.
        front: names of outcomes than which no other is as good on both axes and better on one, by rising x; empty
            where there are fewer than two outcomes, or nothing to measure them by.
    """

    x: str
    y: str
    percent: bool
    points: Sequence[Point]
    aim: float | None
    front: Sequence[str]


@dataclass(frozen=True)
class Histograms(Chart):
    """Shares of rows by loss: ``panels`` by time (before, after), then by set of rows, one share for each bin."""

    edges: Sequence[float]
    panels: Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Series:
    """A line: of one model, or of the references (then ``y`` is their mean, from ``low`` to ``high`` their range)."""

    name: str
    kind: str
    x: Sequence[Any]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Lines(Chart):
    """Curves. ``x``, ``y``: what the axes are; ``places``: names of the places on the x axis, where it has names."""

    x: str
    y: str
    percent: bool
    series: Sequence[Series]
    places: Sequence[str]


@dataclass(frozen=True)
class Changes(Chart):
    """Change of every class's accuracy, as a share: ``series`` over class numbers, ``classes`` their words."""

    series: Sequence[Series]
    classes: Sequence[str]
    gone: Sequence[bool]


def chart_data(report: Mapping[str, Any]) -> dict[str, Chart]:
    """Every chart of a report by its id, in the page's order; of several outcomes too (see ``compare``)."""
    made = [scatter(report), losses(report), relearning(report), changes(report), *similarity(report)]
    return {chart.id: chart for chart in made}


# --- what goes against what stays


def scatter(report: Mapping[str, Any]) -> Chart:
    """Forgotten rows against rows that stay; for the goal ``clean`` the rows that the manipulation acts on."""
    request = report["request"]
    gone, stays = AXES[request["goal"]]
    x, title = _figure(report, gone), "What goes against what stays"
    y = next((f for f in (_figure(report, name) for name in stays) if f["state"] == "figure"), None)
    if x["state"] != "figure" or y is None:
        lacking = x if x["state"] != "figure" else _figure(report, stays[0])
        return Absent("scatter", title, lacking["why"])
    both = [s for s in report["subjects"] if s["name"] in x["values"] and s["name"] in y["values"]]
    points = [Point(s["name"], s["kind"], *(f["values"][s["name"]]["value"] for f in (x, y))) for s in both]
    aim = _aim(request, points)
    front = pareto(points, aim, request)
    percent = in_percent("task", request)
    across, up = (_axis(said(f, request), percent) for f in (x, y))
    return Scatter("scatter", title, _how_scatter(request, aim, front), across, up, percent, points, aim, front)


def _aim(request: Mapping[str, Any], points: Sequence[Point]) -> float | None:
    if request["goal"] != "retrained":
        return request["chance"] if request["goal"] == "chance" else None
    theirs = [point.x for point in points if point.kind == "reference"]
    return statistics.fmean(theirs) if theirs else None


def pareto(points: Sequence[Point], aim: float | None, request: Mapping[str, Any]) -> list[str]:
    """Names of outcomes that no other outcome beats, by rising x: as near the aim, as good on what stays, one better.

    For the goal ``retrained`` the aim is the references' mean, for ``chance`` what lies below it is as good as what
    lies at it, for ``clean`` more is better on both axes.
    """
    outcomes = sorted((p for p in points if p.kind == "outcome"), key=lambda p: (p.x, p.name))
    if len(outcomes) < 2 or (aim is None and request["goal"] != "clean"):
        return []
    better = 1 if request["higher"] else -1

    def costs(p: Point) -> tuple[float, float]:
        if aim is None:
            return -better * p.x, -better * p.y
        off = p.x - aim
        return (max(off, 0.0) if request["goal"] == "chance" else abs(off)), -better * p.y

    found = {p.name: costs(p) for p in outcomes}
    return [name for name, mine in found.items() if not any(_beats(other, mine) for other in found.values())]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def _how_scatter(request: Mapping[str, Any], aim: float | None, front: Sequence[str]) -> str:
    best = "high" if request["higher"] else "low"
    if request["goal"] == "clean":
        where = f"A model that is rid of the manipulation is {best} on both axes."
    elif aim is None:
        where = f"Higher up is {'better' if request['higher'] else 'worse'}; without references nothing marks the aim."
    else:
        line = "where retrained models lie" if request["goal"] == "retrained" else "chance"
        where = f"The closer to the dashed line ({line}) the better forgotten; {best} on the other axis is well kept."
    alone = f" The line through {', '.join(front)} is the front: none of the others is as good on both axes."
    return where + (alone if front else "")


# --- losses


def losses(report: Mapping[str, Any]) -> Chart:
    """Histograms of the loss before and after, of retained, unseen and forgotten rows."""
    found, title = report["losses"], "Losses before and after"
    if not found:
        return Absent("losses", title, "There are no forgotten rows with targets.")
    sets = {when: {SETS[name]: found[when][name] for name in SETS if name in found[when]} for when in WHEN}
    read = (
        "Heights are shares of rows by their loss, on a scale that stretches small shares (square root); unseen are "
        "test rows of the same classes. Rows that a model has learned lie with the retained ones, rows that it never "
        "learned with the unseen. What lies beyond the right edge is counted in the last bin."
    )
    return Histograms("losses", title, read, found["edges"], sets)


# --- curves


def relearning(report: Mapping[str, Any]) -> Chart:
    """How fast every model learns the forgotten rows again."""
    read = (
        "Each model learns a few of the forgotten rows again, under a last layer that starts anew, and is tried on "
        "others of them. One that still knows them climbs sooner or higher than retrained models (band: their range)."
    )
    return curves(report, "relearning", "Relearning the forgotten rows", "steps of training", read)


def similarity(report: Mapping[str, Any]) -> list[Chart]:
    """Similarity of features layer by layer: to those of the references, on two sets of rows, and to the original's."""
    alike = "1 means the same features up to rotation and scale. "
    to_references = (
        f"{alike}What counts is the place beside the retrained models' similarity to each other (the band is their "
        "range): a line below it has layers that no retrained model has."
    )
    to_original = f"{alike}A line above that of the retrained models (the band is their range) has stayed closer."
    about = {
        "cka_forget": ("Similarity to the references by layer, forgotten rows", to_references),
        "cka": ("Similarity to the references by layer, test rows", to_references),
        "cka_original": ("Similarity to the original by layer", to_original),
    }
    return [curves(report, name, title, "layer, from input to output", read) for name, (title, read) in about.items()]


def curves(report: Mapping[str, Any], name: str, title: str, x: str, read: str) -> Chart:
    """The curves of a figure: every model's, with one for all references."""
    figure, request = _figure(report, name), report["request"]
    if figure["state"] != "figure":
        return Absent(name, title, figure["why"])
    series = _series(report, figure)
    if not series:
        return Absent(name, title, "The report has no curve of it.")
    named_places = any(isinstance(place, str) for each in series for place in each.x)
    places = list(dict.fromkeys(place for each in series for place in each.x)) if named_places else []
    percent = in_percent(figure["unit"], request)
    y = _axis(request["figure"] if figure["unit"] == "task" else figure["unit"], percent)
    return Lines(name, title, read, x, y, percent, series, [str(place) for place in places])


def changes(report: Mapping[str, Any]) -> Chart:
    """Change of every class's accuracy from the original's; of many classes those that differ most from retraining."""
    figure, title = _figure(report, "by_class"), "Change of accuracy by class"
    if figure["state"] != "figure":
        return Absent("by_class", title, figure["why"])
    series = _series(report, figure)
    if not series:
        return Absent("by_class", title, "The report has no curve of it.")
    numbers = list(series[0].x)
    shown = _telling(series, numbers)
    words = report["data"].get("classes") or ()
    gone = [c in report["request"]["classes"] for c in shown]
    left = f" Of {len(numbers)} classes those are shown that differ most." if len(shown) < len(numbers) else ""
    read = (
        "Test rows, in points of accuracy from the original's. A class should move as it does when models are "
        f"retrained (bars: their range). A number at the edge is of a class that lies beyond it.{left}"
    )
    names = [str(words[c]) if c < len(words) else str(c) for c in shown]
    return Changes("by_class", title, read, [_only(each, shown) for each in series], names, gone)


def _telling(series: Sequence[Series], numbers: Sequence[int]) -> list[int]:
    """The classes with the greatest distance of outcome and references, in their order."""
    aim = next((s for s in series if s.kind == "reference"), None)

    def distance(place: int) -> float:
        return max(abs(s.y[place] - (aim.y[place] if aim else 0.0)) for s in series if s.kind == "outcome")

    most = sorted(range(len(numbers)), key=lambda place: (-distance(place), place))[:CLASSES]
    return [numbers[place] for place in sorted(most)]


def _only(series: Series, shown: Sequence[int]) -> Series:
    places = [list(series.x).index(c) for c in shown]
    picked = [[values[p] for p in places] if values else [] for values in (series.x, series.y, series.low, series.high)]
    return Series(series.name, series.kind, picked[0], *picked[1:])


def _series(report: Mapping[str, Any], figure: Mapping[str, Any]) -> list[Series]:
    """A line for each model that has a curve, and one for all references: mean and range at the places all have."""
    found = []
    for subject in report["subjects"]:
        curve = figure["values"].get(subject["name"], {}).get("curve")
        if curve and subject["kind"] != "reference":
            found.append(Series(subject["name"], subject["kind"], *_columns(curve)))
    theirs = [figure["values"].get(name, {}).get("curve") for name in named(report, "reference")]
    known = [dict(zip(*_columns(curve), strict=True)) for curve in theirs if curve]
    if known:
        places = [place for place in known[0] if all(place in each for each in known)]
        values = [[each[place] for each in known] for place in places]
        spans = [statistics.fmean(v) for v in values], [min(v) for v in values], [max(v) for v in values]
        found.append(Series(f"{len(known)} retrained", "reference", places, *spans))
    return found if any(s.kind == "outcome" for s in found) else []


def _columns(curve: Sequence[Sequence[Any]]) -> tuple[list[Any], list[float]]:
    return [place for place, _ in curve], [value for _, value in curve]


def _axis(words: str, percent: bool) -> str:
    return f"{words}, %" if percent else words


def _figure(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The figure of that id; one that does not apply where the report has none."""
    absent = {"id": name, "state": "does not apply", "why": f"the report has no figure {name}", "values": {}}
    return next((figure for figure in report["figures"] if figure["id"] == name), absent)
