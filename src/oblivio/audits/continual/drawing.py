"""How the charts of a continual comparison are drawn, in the style of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from oblivio.audits.continual.charts import Heat, Traces
from oblivio.audits.report import drawing
from oblivio.audits.report.charts import Chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FILL = drawing.INK, "#0072b2"
ROOM = 9  # rows or columns of a matrix that have room for numbers
TICKS = 10


def svg(chart: Chart) -> str:
    """A chart as an ``<svg>`` element."""
    return drawing.svg(chart, DRAWN.get(type(chart)))


def heat(figure: Figure, chart: Heat) -> None:
    """Cells as strong as their value, with the value in them where there is room."""
    from matplotlib.patches import Rectangle

    figure.set_size_inches(drawing.SIZE[0], min(4.3, 1.1 + 0.42 * len(chart.rows)))
    axes = drawing.panel(figure, left=44, bottom=40, top=6, right=10)
    known = [v for row in chart.values for v in row if v is not None]
    low, high = (0.0, 1.0) if chart.percent else (min(known), max(known))
    for t, row in enumerate(chart.values):
        for i, value in enumerate(row):
            if value is None:
                continue
            strength = (value - low) / (high - low) if high > low else 1.0
            place = (i - 0.47, t - 0.44), 0.94, 0.88
            # the page's own colour at an opacity: it is legible on light and dark paper alike
            axes.add_patch(Rectangle(*place, color=FILL, alpha=0.6 * strength, linewidth=0))
            axes.add_patch(Rectangle(*place, fill=False, edgecolor=INK, alpha=0.15))
            if len(chart.columns) <= ROOM:
                text = f"{100 * value:.0f}" if chart.percent else f"{value:.2g}"
                axes.text(i, t, text, ha="center", va="center", fontsize=drawing.SMALL, color=INK)
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    _named(axes.set_xticks, chart.columns)
    _named(axes.set_yticks, chart.rows)
    axes.tick_params(length=0)
    axes.set_xlim(-0.5, len(chart.columns) - 0.5)
    axes.set_ylim(len(chart.rows) - 0.5, -0.5)
    axes.set_xlabel("task tested")
    axes.set_ylabel("experiences learned")


def _named(ticks: Callable[..., Any], names: Sequence[str]) -> None:
    """Ticks with names; of many some."""
    step = -(-len(names) // TICKS)
    places = list(range(0, len(names), step))
    ticks(places, [names[i] for i in places])


def traces(figure: Figure, chart: Traces) -> None:
    """Thin lines with bands; a vertical line where tasks change."""
    axes = drawing.panel(figure, right=16 + drawing.width_of(s.name for s in chart.series))
    ends = []
    for series, look in zip(chart.series, drawing.styles([s.kind for s in chart.series]), strict=True):
        colour = look["color"]
        low, high = ([min(max(v, 0), 1) if chart.percent else v for v in side] for side in (series.low, series.high))
        axes.fill_between(series.x, low, high, color=colour, alpha=0.18, linewidth=0)
        line = {"color": colour, "linestyle": look["linestyle"], "linewidth": 1.0, "zorder": look["zorder"]}
        axes.plot(series.x, series.y, **line)
        ends.append((series.x[-1], series.y[-1], series.name, colour))
    for step in chart.switches:
        axes.axvline(step, color=INK, linewidth=0.7, alpha=0.45, linestyle=(0, (2, 2)))
    drawing.scale(axes.yaxis, chart.percent)
    drawing.scale(axes.xaxis, percent=False, whole=True)
    drawing.label(axes, chart)
    drawing.rail(axes, ends)


DRAWN: dict[type[Chart], drawing.Draw] = {Heat: heat, Traces: traces}
