"""Charts as SVG for the inside of a page: no ids, fonts or colours that are not the page's own."""

from __future__ import annotations

import io
import itertools
import math
import re
import statistics
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from oblivio.audits.report.charts import Changes, Chart, Histograms, Lines, Point, Scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Colours that tell apart for the colour-blind (Okabe and Ito, 2008); the page has names for them, lighter in the dark.
INK = "#000000"
COLOURS = {
    INK: "currentColor", "#d55e00": "var(--vermillion)", "#0072b2": "var(--blue)", "#009e73": "var(--green)",
    "#cc79a7": "var(--purple)", "#e69f00": "var(--orange)", "#56b4e9": "var(--sky)",
}  # fmt: skip
OUTCOMES = ["#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
MARKS, DASHES = "DP^v*<Xp>h", ["-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 2, 1, 2))]
KINDS: dict[str, dict[str, Any]] = {
    "original": {"color": INK, "marker": "o", "linestyle": "-", "markersize": 5},
    "reference": {"color": "#0072b2", "marker": "s", "linestyle": (0, (4, 1.5)), "markersize": 5},
    "control": {"color": INK, "linestyle": (0, (1, 1.5)), "markersize": 6, "alpha": 0.65},
}
CONTROLS = ["x", "+", "1", "2"]
SETS: dict[str, dict[str, Any]] = {
    "retained": {"color": INK, "linestyle": "-", "linewidth": 0.9},
    "unseen": {"color": "#0072b2", "linestyle": (0, (4, 1.5))},
    "forgotten": {"color": "#d55e00", "linestyle": "-", "linewidth": 2.0},
}  # fmt: skip
SIZE = (4.3, 3.0)  # inches: its text is as large as the page's small print on a phone
TEXT, SMALL = 9.5, 9.0
LONGEST = 17  # characters of a name on a chart
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "oblivio", "text.parse_math": False, "font.size": TEXT,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.titlesize": TEXT,
    "axes.labelsize": TEXT, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "lines.linewidth": 1.4,
    "axes.grid": True, "grid.color": INK, "grid.alpha": 0.12, "grid.linewidth": 0.6, "figure.facecolor": "none",
    "axes.facecolor": "none", "axes.axisbelow": True, "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "xtick.major.size": 3, "ytick.major.size": 3, "axes.unicode_minus": False, "axes.formatter.useoffset": False,
}  # fmt: skip


Draw = Callable[[Any, Any], None]  # (figure, chart)


def svg(chart: Chart, draw: Draw | None = None) -> str:
    """A chart as an ``<svg>`` element; the same chart gives the same text in every process.

    ``draw`` puts a chart of a kind that is not known here on a figure.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {**matplotlib.rcParamsDefault, **STYLE}
    del style["backend"]  # to set it is to start the global state of pyplot
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's fonts draw the text, not these
        figure = Figure(figsize=SIZE)
        (draw or DRAWN[type(chart)])(figure, chart)
        for artist in figure.findobj():
            artist.set_clip_on(False)  # all is inside, and a clip is a reference by url()
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    return inline(file.getvalue(), chart)


def inline(text: str, chart: Chart) -> str:
    """Matplotlib's SVG as a page can hold it: ids of its own, the page's colours and font, read aloud as its title."""
    root = ElementTree.fromstring(text)
    linked = {value[1:] for each in root.iter() for name, value in each.items() if name.endswith("href")}
    for each in root.iter():
        each.tag = each.tag.partition("}")[2]
        own = [_own(name, value, chart.id, linked) for name, value in each.items()]
        each.attrib.clear()
        each.attrib.update(pair for pair in own if pair is not None)
    for defs in root.findall("defs[style]"):  # a style would hold for the whole page
        root.remove(defs)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "role": "img", "aria-label": plain(chart.title), "class": "chart"})
    return re.sub(r"\s*\n\s*", "\n", ElementTree.tostring(root, encoding="unicode")).strip()


def _own(name: str, value: str, chart: str, linked: Collection[str]) -> tuple[str, str] | None:
    """An attribute with the page's names; None for an id that nothing refers to."""
    if name == "id":
        return (name, f"{chart}-{value}") if value in linked else None
    if name.endswith("href"):
        return "href", f"#{chart}-{value[1:]}"
    value = re.sub(r"font: (?:\S+ )??([\d.]+px) [^;]*", r"font-size: \1", value)  # as older Matplotlibs say it
    value = re.sub(r"font-family: [^;]*(; )?", "", value)
    return name, re.sub(r"#[0-9a-f]{6}", lambda found: COLOURS.get(found[0], found[0]), value)


def plain(text: str) -> str:
    """Words that XML can hold, in one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def short(text: str, most: int = LONGEST) -> str:
    """A name that fits; of a long one the beginning and the end."""
    text = plain(text)
    return text if len(text) <= most else f"{text[: most - 6]}…{text[-5:]}"


# --- what all charts share


def styles(kinds: Sequence[str]) -> list[dict[str, Any]]:
    """For each model, by its kind, a colour, a marker and a dash; no two outcomes or controls have the same marker."""
    outcome, control = itertools.count(), itertools.count()
    found = []
    for kind in kinds:
        if kind == "outcome":
            i = next(outcome)
            own = {"color": OUTCOMES[i % len(OUTCOMES)], "marker": MARKS[i % len(MARKS)], "markersize": 6}
            found.append({**own, "linestyle": DASHES[i // len(OUTCOMES) % len(DASHES)], "zorder": 4})
        else:
            mark = {"marker": CONTROLS[next(control) % len(CONTROLS)]} if kind == "control" else {}
            found.append({**KINDS[kind], **mark, "zorder": 3})
    return found


def panel(figure: Figure, left: float = 54, right: float = 8, bottom: float = 40, top: float = 8) -> Axes:
    """Axes with margins in points. No layout is sought: that takes longer than drawing, and fails on long names."""
    wide, tall = 72 * figure.get_size_inches()
    return figure.add_axes((left / wide, bottom / tall, 1 - (left + right) / wide, 1 - (bottom + top) / tall))


def width_of(names: Iterable[str]) -> float:
    """Room for the longest of some names, in points."""
    return 5.2 * max(len(short(name)) for name in names)


def rail(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside the right edge, in the colour of their points (x, y in data), with a thin line to each."""
    bottom, top = axes.get_ylim()
    least = 1.2 * SMALL / (72 * SIZE[1] * axes.get_position().height)  # a line of text, as a share of the axes' height
    heights = spread([(y - bottom) / (top - bottom) for _, y, _, _ in ends], least)
    for (x, y, name, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            short(name), (x, y), (1.04, height), textcoords="axes fraction", va="center", color=colour, fontsize=SMALL,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3},
        )  # fmt: skip


def spread(heights: Sequence[float], least: float) -> list[float]:
    """Heights moved until they are ``least`` apart, in the same order, and none above 1 unless all do not fit."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    found, floor = [0.0] * len(heights), -math.inf
    for i in order:
        floor = found[i] = max(heights[i], floor + least)
    ceiling = max(1.0, (len(heights) - 1) * least)
    for i in reversed(order):
        found[i] = min(found[i], ceiling)
        ceiling = found[i] - least
    return found


def scale(axis: Axis, percent: bool, whole: bool = False) -> None:
    """Few ticks, at whole numbers if so; of shares as percent, and none below 0% or above 100%, where only room is."""
    from matplotlib.ticker import MaxNLocator

    low, high = axis.get_view_interval()
    found = MaxNLocator(6, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
    ticks = [float(tick) for tick in found if low <= tick <= high]
    if percent:
        axis.set_major_formatter(lambda tick, _: f"{100 * tick:.6g}")
        ticks = [tick for tick in ticks if -1e-9 <= tick <= 1 + 1e-9]
    axis.set_ticks(ticks)


def label(axes: Axes, chart: Scatter | Lines) -> None:
    """What the axes are."""
    axes.set_xlabel(short(chart.x, 50))
    axes.set_ylabel(short(chart.y, 34))


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="upper center", ncols=min(len(names), 3), frameon=False, fontsize=SMALL,
        labelcolor="linecolor", handlelength=1.6, columnspacing=1.2, borderaxespad=0,
    )  # fmt: skip


# --- the charts


def _scatter(figure: Figure, chart: Scatter) -> None:
    ends = _ends_of(chart.points)
    axes = panel(figure, right=16 + width_of(name for _, _, name, _ in ends))
    for point, look in zip(chart.points, styles([p.kind for p in chart.points]), strict=True):
        hollow = {"markerfacecolor": "none", "markersize": 8} if point.kind == "reference" else {}
        axes.plot(point.x, point.y, **{**look, **hollow}, linewidth=0)
    if chart.aim is not None:
        axes.axvline(chart.aim, color=KINDS["reference"]["color"], linestyle=(0, (4, 3)), linewidth=0.8)
    known = {p.name: p for p in chart.points}
    best = [known[name] for name in chart.front]
    axes.plot([p.x for p in best], [p.y for p in best], color=INK, linewidth=3.5, alpha=0.18, zorder=1)
    axes.set_xlim(_room([p.x for p in chart.points], chart.percent))
    axes.set_ylim(_room([p.y for p in chart.points], chart.percent))
    for axis in (axes.xaxis, axes.yaxis):
        scale(axis, chart.percent)
    label(axes, chart)
    rail(axes, ends)


def _ends_of(points: Sequence[Point]) -> list[tuple[float, float, str, str]]:
    """What is named: every model, and of the references the middle of all."""
    looks = styles([p.kind for p in points])
    ends = [(p.x, p.y, p.name, look["color"]) for p, look in zip(points, looks, strict=True) if p.kind != "reference"]
    theirs = [p for p in points if p.kind == "reference"]
    if theirs:
        middle = statistics.fmean(p.x for p in theirs), statistics.fmean(p.y for p in theirs)
        ends.append((*middle, f"{len(theirs)} retrained", KINDS["reference"]["color"]))
    return ends


def _room(values: Sequence[float], percent: bool) -> tuple[float, float]:
    """Limits around values, so that none lies on an axis and small differences look small."""
    low, high = min(values), max(values)
    room = max(0.08 * (high - low), 0.02 * max(abs(low), abs(high))) or 0.01
    low, high = low - room, high + room
    rim = 0.07 * (high - low)
    return (max(low, -rim), min(high, 1 + rim)) if percent else (low, high)


def _losses(figure: Figure, chart: Histograms) -> None:
    panels = [panel(figure, bottom=126, top=36), panel(figure, top=122)]
    most = max(max(shares) for sets in chart.panels.values() for shares in sets.values())
    ticks = [tick for tick in (0.0, 0.05, 0.2, 0.5, 1.0) if tick <= 1.1 * most]
    for axes, (when, sets) in zip(panels, chart.panels.items(), strict=True):
        for name, shares in sets.items():
            axes.stairs([math.sqrt(share) for share in shares], chart.edges, label=name, **SETS[name])
        axes.set_yticks([math.sqrt(tick) for tick in ticks], [f"{100 * tick:g}" for tick in ticks])
        axes.set_title(when, loc="left", pad=3)
        axes.set_ylabel("rows, %")
    panels[0].tick_params(labelbottom=False)
    panels[-1].set_xlabel("loss")
    _legend(figure, panels[0])


def _lines(figure: Figure, chart: Lines) -> None:
    right, below = 16 + width_of(s.name for s in chart.series), width_of(chart.places) / 2 if chart.places else 0
    axes, place = panel(figure, right=right, bottom=40 + below), {name: i for i, name in enumerate(chart.places)}
    ends = []
    for series, look in zip(chart.series, styles([s.kind for s in chart.series]), strict=True):
        x = [place[str(at)] for at in series.x] if chart.places else list(series.x)
        if series.low:
            axes.fill_between(x, series.low, series.high, color=look["color"], alpha=0.2, linewidth=0)
        axes.plot(x, series.y, **{**look, "markersize": 4.5})
        ends.append((x[-1], series.y[-1], series.name, look["color"]))
    scale(axes.yaxis, chart.percent)
    if chart.places:
        _name_places(axes, chart.places)
    else:
        scale(axes.xaxis, percent=False, whole=True)
    label(axes, chart)
    rail(axes, ends)


def _name_places(axes: Axes, places: Sequence[str]) -> None:
    """Names under the axis; of many, some, the first and the last among them."""
    step = max(1, math.ceil((len(places) - 1) / 7))
    shown = [*range(0, len(places) - step, step), len(places) - 1]
    axes.set_xticks(shown, [short(places[i]) for i in shown], rotation=30, ha="right", rotation_mode="anchor")


def _changes(figure: Figure, chart: Changes) -> None:
    figure.set_size_inches(SIZE[0], max(1.7, 0.9 + 0.21 * len(chart.classes)))
    axes, edge, between = panel(figure, left=98, top=24), _edge(chart), 0.5 / len(chart.series)
    for place, (series, look) in enumerate(zip(chart.series, styles([s.kind for s in chart.series]), strict=True)):
        rows = [row + between * (place - (len(chart.series) - 1) / 2) for row in range(len(series.y))]
        if series.low:
            span = _inside(series.low, edge), _inside(series.high, edge)
            axes.hlines(rows, *span, color=look["color"], linewidth=4, alpha=0.35)
        look = {**look, "linestyle": "none", "markersize": 5, "label": short(series.name)}
        axes.plot(_inside(series.y, edge), rows, **look)
        _say_beyond(axes, edge, zip(series.y, rows, strict=True), 7 + 22 * place, look["color"])
    axes.axvline(0, color=INK, linewidth=0.7)
    named = zip(chart.classes, chart.gone, strict=True)
    words = [f"{short(name, 10)} (goes)" if gone else short(name) for name, gone in named]
    axes.set_yticks(range(len(words)), words)
    axes.set_ylim(len(words) - 0.4, -0.6)
    axes.set_xlim(-1.08 * edge, 1.08 * edge)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+g}" if value else "0")
    axes.set_xlabel("change of accuracy, points")
    _legend(figure, axes)


def _say_beyond(axes: Axes, edge: float, marks: Iterable[tuple[float, float]], away: float, colour: str) -> None:
    """Beside marks that stand at the edge for values beyond it, the values; ``away`` in points."""
    for value, row in marks:
        if abs(value) > edge:
            axes.annotate(
                f"{100 * value:+.0f}", (math.copysign(edge, value), row), (math.copysign(away, -value), 0),
                textcoords="offset points", color=colour, fontsize=SMALL, va="center",
                ha="left" if value < 0 else "right",
            )  # fmt: skip


def _edge(chart: Changes) -> float:
    """How far the axis goes: as far as what stays has changed; beside a class that goes, that could not be seen."""
    every = [[abs(y) for y, gone in zip(s.y, chart.gone, strict=True) if not gone] for s in chart.series]
    return 1.15 * max(0.01, *itertools.chain(*every)) if any(every) else 1.0


def _inside(values: Sequence[float], edge: float) -> list[float]:
    return [max(-edge, min(edge, value)) for value in values]


DRAWN: dict[type[Chart], Draw] = {
    Scatter: _scatter, Histograms: _losses, Lines: _lines, Changes: _changes,
}  # fmt: skip
