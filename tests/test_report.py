"""The page of a report and that of several: what is on it, where its numbers come from, and how it lies on a phone."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import browser
import pytest
import reports
from hypothesis import given
from hypothesis import strategies as st

from oblivio import data
from oblivio.audits.audit import audit
from oblivio.audits.report import Report, charts, drawing
from oblivio.audits.report.charts import Absent, Changes, Histograms, Lines, Point, Scatter, chart_data, pareto
from oblivio.audits.report.compare import compare, table, together
from oblivio.audits.report.page import page
from oblivio.audits.subjects import Subject, controls
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.jobs.network import network
from oblivio.jobs.recipe import Recipe
from oblivio.jobs.training import train

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=http://x.y onerror=z> {{ 7 * 7 }} {% raw %} $\\frac$ url(http://x.y) &lt;"
)
LONG = "anoutcomewithaverylongnameandnowheretobreakit" * 4


class Elements(HTMLParser):
    """Tags, attributes, ids, and the text of every cell of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[tuple[str, str]] = set()
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {(tag, name) for name, _ in attrs}
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, text: str) -> None:
        if self.cells:
            self.cells[-1] += text.strip()


def figure_of(report: Report, name: str) -> dict[str, Any]:
    return next(figure for figure in report["figures"] if figure["id"] == name)


def but_figure(report: Report, name: str, **fields: Any) -> Report:
    return report.but(figures=[{**f, **fields} if f["id"] == name else f for f in report["figures"]])


def shown(report: Report) -> str:
    """Its page, drawn once."""
    return drawn_once(json.dumps(report, sort_keys=True))


@functools.cache
def drawn_once(text: str) -> str:
    return page(json.loads(text))


def without_figures(report: Report) -> Report:
    return report.but(figures=[], policy=[], losses={})


def but_request(report: Report, **fields: Any) -> Report:
    return report.but(request={**report["request"], **fields})


@pytest.fixture(scope="module")
def synthetic() -> Report:
    return reports.report()


@pytest.fixture(scope="module")
def hostile() -> Report:
    """Every string that a user, a data set or a library could have put there is an attack."""
    report = reports.renamed(reports.report(), HOSTILE)
    subjects = [{**s, "name": HOSTILE + s["kind"] if s["kind"] == "control" else s["name"]} for s in report["subjects"]]
    figures = [{**f, "says": f["says"] + HOSTILE, "why": f["why"] and HOSTILE} for f in report["figures"]]
    notes = [value for f in figures for value in f["values"].values()]
    for value in notes:
        value["note"] = HOSTILE
    return report.but(
        subjects=subjects, figures=figures, notes=[HOSTILE], reproduced={"same": True, "why": HOSTILE},
        data={"name": HOSTILE, "licence": HOSTILE, "classes": [HOSTILE + str(i) for i in range(4)]},
        method={"name": HOSTILE, "settings": {HOSTILE: HOSTILE}, "plan": HOSTILE},
        derived=[{"path": HOSTILE, "what": HOSTILE, "sha256": ""}],
    )  # fmt: skip


@pytest.fixture(scope="module")
def real() -> Report:
    """An audit of models that were trained a little on digits."""
    digits = data.load("digits")
    gone, kept = data.split(digits.train, "class=3", seed=0)
    net, recipe = network("mlp", {"hidden": [16]}, digits), Recipe(epochs=2, batch=64)
    original, outcome = (
        {"model": train(recipe, net, rows, 0, task=digits.task).module} for rows in (digits.train, kept)
    )
    others = [train(recipe, net, kept, seed, task=digits.task).module for seed in (1, 2, 3)]
    problem = Problem(original["model"], task=digits.task, forget=gone, retain=kept, test=digits.test)
    return audit(problem, [
        Subject("retrain", "outcome", outcome), Subject("original", "original", original),
        *(Subject(f"retrained {i}", "reference", {"model": m}) for i, m in enumerate(others, 1)),
        *controls(original, outcome, [3], 0),
    ], [3])  # fmt: skip


# --- the page of one report


@pytest.mark.parametrize("which", ["synthetic", "real", "hostile"])
def test_the_page_is_a_function_of_the_json_alone(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    report = request.getfixturevalue(which)
    report.save(tmp_path / "report.html", rows=False)
    assert (
        Report.load(tmp_path).html() == (tmp_path / "report.html").read_text() == page(json.loads(json.dumps(report)))
    )


def test_another_process_makes_the_same_page_and_draws_late(synthetic: Report, tmp_path: Path) -> None:
    synthetic.save_json(tmp_path / "report.json")
    code = (
        "import hashlib, sys; from oblivio.audits.report.page import page; from oblivio.audits.report import Report\n"
        f"assert 'matplotlib' not in sys.modules; found = page(Report.load({str(tmp_path)!r})).encode()\n"
        "assert 'matplotlib.pyplot' not in sys.modules; print(hashlib.sha256(found).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.stdout.strip() == hashlib.sha256(shown(synthetic).encode()).hexdigest(), done.stderr


@pytest.mark.parametrize("which", ["synthetic", "real", "hostile"])
def test_every_figure_is_there_and_no_cell_is_empty(which: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(which)
    found = shown(report)
    assert [f["id"] for f in report["figures"] if f"<code>{f['id']}</code>" not in found] == []
    assert "" not in Elements(found).cells


def test_the_verdict_comes_first_with_its_reasons(synthetic: Report) -> None:
    found = shown(synthetic)
    body = found[found.index("<main>") :]
    assert synthetic["verdict"]["word"] == "REJECTED"
    assert body.index("REJECTED") < body.index("so that the model is like one that never learned them")
    assert body.index(synthetic["verdict"]["reasons"][0]) < body.index("<table")
    assert "forget 120 rows, all of class three, of digits (licence: CC BY 4.0)" in body


def test_each_verdict_has_a_shape_of_its_own(synthetic: Report) -> None:
    words = ("ACCEPTED", "REJECTED", "INCONCLUSIVE")
    bare = without_figures(synthetic)
    pages = [page({**bare, "verdict": {**bare["verdict"], "word": word}}) for word in words]
    shapes = [re.search(r'<svg class="symbol".*?</svg>', found, re.DOTALL) for found in pages]
    assert len({shape[0] for shape in shapes if shape}) == 3


def test_what_a_figure_says_and_why_it_says_nothing(synthetic: Report) -> None:
    cells = Elements(shown(synthetic)).cells
    assert "2.0%[1.0, 3.0]" in cells  # the outcome with its interval over rows
    assert "1.0\u00a0±\u00a01.0%0.0 to 2.0" in cells  # references: mean, spread over models, range
    assert "does not apply: there are no affected rows" in cells
    assert "failed: ValueError: the figure is nan" in cells
    assert "no power on this requestby outputs" in cells
    assert "can tell the originalby features" in cells
    assert "86.0%class 8" in cells


def test_spread_of_points_has_no_sign(synthetic: Report) -> None:
    assert "-91.5\u00a0±\u00a00.7 points-92.0 to -91.0" in Elements(shown(synthetic)).cells


def test_it_says_what_is_left_and_what_was_not_tested(synthetic: Report) -> None:
    found = shown(synthetic)
    left = found[found.index('id="left"') :]
    assert "<code>runs/one/model</code> <span>the original</span>" in left
    assert "oblivio purge DIR" in left
    silent = found[found.index('id="untested"') : found.index('id="guarantee"')]
    assert [word in silent for word in ("affected rows", "4 bits", "likelihood-ratio", "Copies")] == [True] * 4
    assert "Guarantee: empirical" in found
    assert "oblivio 0.1.0" in found


def test_a_report_that_knows_little_has_a_page(synthetic: Report) -> None:
    bare = without_figures(but_request(synthetic, classes=[], rows={}, goal="chance", chance=None)).but(
        data={}, method={}, cost={}, derived=[], notes=[]
    )
    found = page(bare)
    assert [words in found for words in ("not named", "not stated", "is not known", "knows of no such file")] == [
        True
    ] * 4
    assert "<figure" in found
    assert 'class="chart"' not in found


def test_hostile_strings_add_nothing_to_a_page(synthetic: Report, hostile: Report) -> None:
    for one, other in ((shown(synthetic), shown(hostile)), (compared(synthetic), compared(hostile))):
        mine, theirs = Elements(one), Elements(other)
        assert theirs.tags.keys() == mine.tags.keys()
        assert theirs.attributes == mine.attributes
        assert theirs.tags["svg"] == mine.tags["svg"]
        assert "alert(1)" in other
        assert "{{ 7 * 7 }}" in other


def test_a_path_that_is_no_text_is_shown_as_far_as_it_is(synthetic: Report) -> None:
    derived = [{"path": "runs/\udcff\udce9", "what": "the original", "sha256": ""}]
    assert "<code>runs/??</code>" in page(without_figures(synthetic).but(derived=derived))


@pytest.mark.parametrize("which", ["synthetic", "real"])
def test_nothing_is_loaded_and_no_name_is_used_twice(which: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(which)
    for found in (shown(report), compared(report)):
        assert re.findall(r"@import|url\(|<script|<link|<img|\bsrc=|https?:|(?<!\w)href=\"(?!#)", found) == []
        ids = Elements(found).ids
        assert sorted(ids) == sorted(set(ids))
        assert set(re.findall(r'href="#([^"]+)"', found)) <= set(ids)


def test_a_large_report_is_a_small_file(synthetic: Report) -> None:
    places = [f"encoder.layers.{i}.self_attention.projection" for i in range(60)]
    line, classes = reports.curve(*[i / 60 for i in range(60)], places=places), [i / 200 for i in range(200)]
    report = but_figure(synthetic, "cka", values={"npo": line, "original": line, "retrained 1": line})
    report = but_figure(report, "by_class", values={"npo": reports.curve(*classes, places=range(200))})
    edges, shares = [i / 40 for i in range(41)], [1 / 40] * 40
    sets = dict.fromkeys(("members", "unseen", "forgotten"), shares)
    report = report.but(losses={"edges": edges, "before": sets, "after": sets}, figures=[
        *report["figures"], *({**report["figures"][0], "id": f"more_{i}"} for i in range(80))
    ])  # fmt: skip
    assert len(page(report).encode()) < 300_000


# --- the data of charts


def test_points_are_the_figures(synthetic: Report) -> None:
    chart = chart_data(synthetic)["scatter"]
    assert isinstance(chart, Scatter)
    values = [{name: v["value"] for name, v in figure_of(synthetic, f)["values"].items()} for f in ("forget", "retain")]
    assert {p.name: (p.x, p.y) for p in chart.points} == {
        name: (values[0][name], values[1][name]) for name in values[0]
    }
    assert chart.aim == pytest.approx(0.01)
    assert chart.percent
    assert chart.front == []


def test_the_axes_are_those_that_the_goal_is_judged_by(synthetic: Report) -> None:
    chance = chart_data(but_request(synthetic, goal="chance"))["scatter"]
    assert isinstance(chance, Scatter)
    assert chance.aim == 0.25
    assert "test rows that stay" in chance.y
    values = figure_of(synthetic, "forget")["values"]
    clean = but_figure(but_request(synthetic, goal="clean"), "affected", state="figure", values=values)
    chart = chart_data(clean)["scatter"]
    assert isinstance(chart, Scatter)
    assert chart.aim is None
    assert "affected" in chart.x


def test_without_retained_rows_those_of_the_test_stand_for_them(synthetic: Report) -> None:
    chart = chart_data(but_figure(synthetic, "retain", state="does not apply", why="no rows", values={}))["scatter"]
    assert isinstance(chart, Scatter)
    assert chart.points[0].y == 0.96


REQUESTS = {goal: {"goal": goal, "higher": True, "chance": 0.1} for goal in ("retrained", "chance", "clean")}


def outcomes(*places: tuple[float, float]) -> list[Point]:
    return [Point(f"{i}", "outcome", x, y) for i, (x, y) in enumerate(places)]


def test_the_front_of_points_by_hand() -> None:
    points = outcomes((0.5, 0.9), (0.4, 0.95), (0.62, 0.95), (0.8, 0.99), (0.9, 0.98))
    assert pareto(points, 0.5, REQUESTS["retrained"]) == ["1", "0", "3"]
    assert pareto(points, 0.5, {**REQUESTS["retrained"], "higher": False}) == ["0"]
    assert pareto(points, 0.7, REQUESTS["chance"]) == ["1", "2", "3"]  # below chance is as good as chance
    assert pareto(points, None, REQUESTS["clean"]) == ["3", "4"]
    assert pareto(points, None, REQUESTS["retrained"]) == []
    assert pareto(points[:1], 0.5, REQUESTS["retrained"]) == []


SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@given(st.lists(st.tuples(SHARES, SHARES), min_size=2, max_size=8), SHARES)
def test_a_point_is_on_the_front_unless_another_is_better(places: list[tuple[float, float]], aim: float) -> None:
    front = pareto(outcomes(*places), aim, REQUESTS["retrained"])
    for i, (x, y) in enumerate(places):
        no_worse = [(abs(a - aim), b) for a, b in places if abs(a - aim) <= abs(x - aim) and b >= y]
        assert (f"{i}" in front) == (set(no_worse) == {(abs(x - aim), y)})


def test_histograms_are_those_of_the_report(synthetic: Report) -> None:
    chart = chart_data(synthetic)["losses"]
    assert isinstance(chart, Histograms)
    assert chart.edges == synthetic["losses"]["edges"]
    assert chart.panels["before"]["retained"] == synthetic["losses"]["before"]["members"]
    assert chart.panels["after"]["forgotten"] == synthetic["losses"]["after"]["forgotten"]
    alone = chart_data(
        synthetic.but(losses={"edges": [0, 1], "before": {"forgotten": [1]}, "after": {"forgotten": [1]}})
    )
    assert drawing.svg(alone["losses"]).count("forgotten") == 1


@pytest.mark.parametrize(("name", "places"), [("cka", reports.LAYERS), ("relearning", [])])
def test_curves_are_those_of_the_figures(synthetic: Report, name: str, places: list[str]) -> None:
    chart = chart_data(synthetic)[name]
    assert isinstance(chart, Lines)
    assert chart.places == places
    values = figure_of(synthetic, name)["values"]
    found = {series.name: series for series in chart.series}
    assert list(found) == ["npo", "original", "3 retrained"]
    for model in ("npo", "original"):
        assert [list(pair) for pair in zip(found[model].x, found[model].y, strict=True)] == values[model]["curve"]
    theirs = [[v for _, v in values[r]["curve"]] for r in reports.REFERENCES]
    columns = list(zip(*theirs, strict=True))
    assert found["3 retrained"].y == [statistics.fmean(c) for c in columns]
    assert (found["3 retrained"].low, found["3 retrained"].high) == ([*map(min, columns)], [*map(max, columns)])


def test_changes_by_class(synthetic: Report) -> None:
    chart = chart_data(synthetic)["by_class"]
    assert isinstance(chart, Changes)
    assert chart.classes == ["zero", "one", "two", "three"]
    assert chart.gone == [False, False, False, True]
    npo, theirs = chart.series
    assert npo.y == [-0.01, 0.0, -0.03, -0.9]
    assert theirs.y == pytest.approx([0.0, 0.005, 0.01, -0.915])
    assert "-90" in drawing.svg(chart)  # beyond the edge it is written


def test_of_many_classes_those_are_drawn_that_differ_most(synthetic: Report) -> None:
    mine = [0.001 * (i % 50) for i in range(100)]
    values = {
        "npo": reports.curve(*mine, places=range(100)),
        "retrained 1": reports.curve(*[0.0] * 100, places=range(100)),
    }
    chart = chart_data(but_figure(synthetic, "by_class", values=values))["by_class"]
    assert isinstance(chart, Changes)
    assert chart.series[0].x == [*range(43, 50), *range(93, 100)]
    assert chart.series[0].y == [mine[c] for c in chart.series[0].x]
    assert "Of 100 classes" in chart.read


def test_a_chart_without_data_says_why(synthetic: Report) -> None:
    silent = [{**f, "state": "does not apply", "why": f"no {f['id']}", "values": {}} for f in synthetic["figures"]]
    found = chart_data(synthetic.but(figures=silent, losses={}))
    assert {type(chart) for chart in found.values()} == {Absent}
    assert [found[name].read for name in ("scatter", "cka", "relearning")] == ["no forget", "no cka", "no relearning"]
    flat = but_figure(synthetic, "cka", values={"npo": reports.value(0.5)})
    assert chart_data(flat)["cka"].read == "The report has no curve of it."


# --- drawings


@pytest.mark.parametrize("name", ["scatter", "losses", "relearning", "by_class", "cka"])
def test_a_drawing_has_a_title_and_the_colours_and_font_of_the_page(synthetic: Report, name: str) -> None:
    chart = chart_data(synthetic)[name]
    found = drawing.svg(chart)
    root = ElementTree.fromstring(found)
    assert root.attrib == {"viewBox": root.get("viewBox"), "role": "img", "aria-label": chart.title, "class": "chart"}
    assert re.findall(r"#[0-9a-f]{6}\b|DejaVu|<style|<metadata|clip-path|xmlns", found) == []
    assert found == drawing.svg(chart)


def test_no_two_outcomes_look_alike() -> None:
    looks = drawing.styles(["original", *["outcome"] * 10, *["control"] * 3])
    assert len({(look["color"], look["marker"]) for look in looks}) == 14
    assert len({look["marker"] for look in looks[1:11]}) == 10


@given(st.text())
def test_any_name_can_be_drawn(text: str) -> None:
    name = drawing.short(text)
    assert len(name) <= drawing.LONGEST
    assert ElementTree.fromstring(f"<a>{escape(name)}</a>").text in (name, None)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.12))
def test_names_beside_a_chart_do_not_overlap(heights: list[float], least: float) -> None:
    found = drawing.spread(heights, least)
    placed = sorted(found)
    assert all(b - a >= least - 1e-9 for a, b in itertools.pairwise(placed))
    assert all(found[i] <= found[j] for i in range(len(found)) for j in range(len(found)) if heights[i] < heights[j])
    assert min(found) >= -1e-9
    assert max(found) <= 1 + 1e-9
    if all(b - a >= least for a, b in itertools.pairwise(sorted(heights))):
        assert found == pytest.approx(heights)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.999, 1.0]])
def test_points_have_room(values: Sequence[float]) -> None:
    low, high = drawing._room(values, True)
    assert low < min(values) <= max(values) < high
    assert math.isclose(*drawing._room([5.0, 5.0], False)) is False


# --- several outcomes


def several(report: Report) -> list[tuple[str, Report]]:
    changes = {"npo": 0.0, "salun": 0.005, "finetune": 0.3}
    return [(name, reports.renamed(report, name, by) if by else report) for name, by in changes.items()]


def compared(report: Report) -> str:
    """The page of it beside itself under another name, drawn once."""
    return compared_once(json.dumps(report, sort_keys=True))


@functools.cache
def compared_once(text: str) -> str:
    report = json.loads(text)
    name = report["subjects"][0]["name"]
    return compare([(name, report), (f"{name} again", report)])


def test_outcomes_are_beside_each_other(synthetic: Report) -> None:
    named = several(synthetic)
    found = page_cells = Elements(compare(named)).cells
    assert all(name in found for name, _ in named)
    assert "✕ 32.0%0.0 to 6.0%" in page_cells
    assert "✓ 2.0%" in page_cells
    assert "1.0\u00a0±\u00a01.0%0.0 to 2.0" in page_cells
    assert "" not in page_cells


def test_figures_of_all_are_drawn(synthetic: Report) -> None:
    named = several(synthetic)
    whole = together(named)
    chart = charts.scatter(whole)
    assert isinstance(chart, Scatter)
    expected = {name: figure_of(r, "forget")["values"][r["subjects"][0]["name"]]["value"] for name, r in named}
    assert {p.name: p.x for p in chart.points if p.kind == "outcome"} == expected
    assert {p.kind for p in chart.points} == {"outcome", "original", "reference"}
    assert chart.front == pareto(chart.points, chart.aim, whole["request"])
    assert "salun" in chart.front
    lines = charts.similarity(whole)[1]
    assert isinstance(lines, Lines)
    assert [s.name for s in lines.series] == ["npo", "salun", "finetune", "original", "3 retrained"]


def test_a_figure_that_one_report_lacks_is_shown_for_the_others(synthetic: Report) -> None:
    silent = but_figure(synthetic, "cka", state="does not apply", why="it was left out on request", values={})
    for named in ([("a", synthetic), ("b", silent)], [("b", silent), ("a", synthetic)]):
        values = figure_of(Report(together(named)), "cka")["values"]
        assert sorted(values) == ["a", "original", *reports.REFERENCES]
        lacking = next(line for line in table(named).splitlines() if line.startswith("b "))
        assert " – " in lacking


def test_the_table_for_a_terminal(synthetic: Report) -> None:
    lines = table(several(synthetic)).splitlines()
    assert lines[0].split()[:4] == ["accuracy", "in", "%", "verdict"]
    assert [line.split()[0] for line in lines[1:]] == ["npo", "salun", "finetune", "original", "3"]
    assert "✕\u00a0REJECTED" in lines[1]
    assert "✕ 32.0%" in lines[3]


WRONG = {
    "request.rows is": lambda r: but_request(r, rows={"forget": 7}),
    "data is digits and mnist": lambda r: r.but(data={"name": "mnist"}),
    "judged by other rules for forget": lambda r: r.but(
        policy=[{**r["policy"][0], "tolerance": 0.5}, *r["policy"][1:]]
    ),
    "retrained 2 is another model: its figure forget is 0.01 and 0.4": lambda r: but_figure(
        r, "forget", values={**figure_of(r, "forget")["values"], "retrained 2": reports.value(0.4)}
    ),
    "one is held against original, retrained 1": lambda r: r.but(subjects=r["subjects"][:3]),
}


@pytest.mark.parametrize("words", WRONG)
def test_outcomes_of_different_requests_are_not_compared(synthetic: Report, words: str) -> None:
    for make in (compare, table):
        with pytest.raises(BadInput, match=f"one and other cannot be compared: .*{re.escape(words)}"):
            make([("one", synthetic), ("other", WRONG[words](synthetic))])


def test_a_comparison_needs_two_names(synthetic: Report) -> None:
    with pytest.raises(BadInput, match="two reports or more"):
        compare([("npo", synthetic)])
    with pytest.raises(BadInput, match="two models are called npo"):
        compare([("npo", synthetic), ("npo", synthetic)])
    with pytest.raises(BadInput, match="two models are called original"):
        compare([("npo", synthetic), ("original", synthetic)])


def test_the_last_digits_of_a_figure_do_not_make_another_model(synthetic: Report) -> None:
    values = figure_of(synthetic, "retain")["values"]
    moved = {**values, "original": {**values["original"], "value": values["original"]["value"] * (1 + 1e-8)}}
    assert table([("a", synthetic), ("b", but_figure(synthetic, "retain", values=moved))])


# --- in a browser

# One that found nothing on this page either would find no fault with any.
WIDE = '<!doctype html><body><p style="width: 500px"><img src="http://127.0.0.1:9/gone.png">'


def test_at_390_pixels_nothing_scrolls_sideways_and_nothing_is_loaded(
    synthetic: Report, real: Report, tmp_path: Path
) -> None:
    long = reports.renamed(synthetic, LONG).but(
        notes=[LONG], data={"name": LONG, "licence": LONG, "classes": [LONG] * 4},
        derived=[{"path": f"{LONG}/{LONG}", "what": LONG, "sha256": ""}],
        method={"name": LONG, "settings": {LONG: LONG}, "plan": LONG},
    )  # fmt: skip
    pages = {
        "synthetic": shown(synthetic), "real": shown(real), "long": page(long), "compared": compare(several(synthetic)),
        "compared_long": compared(long), "wide": WIDE,
    }  # fmt: skip
    measured = browser.laid_out(pages, tmp_path)
    wide = measured.pop("wide")
    assert min(wide["scroll"], wide["right"]) >= 500
    assert wide["loaded"] == ["http://127.0.0.1:9/gone.png"]
    for name, found in measured.items():
        assert found["height"] > 2000, f"{name} was not laid out"
        assert found["scroll"] <= found["width"] <= 390, (name, found["widest"])
        assert found["right"] <= found["width"] + 0.5, (name, found["widest"])
        assert found["loaded"] == []


def test_without_a_browser_it_is_skipped_but_fails_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROME", "no-such-browser")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="no browser: none of no-such-browser"):
        browser.command()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        browser.command()
