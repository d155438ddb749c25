"""A report as one page of HTML that stands alone: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from oblivio.audits.probe import QUESTIONS
from oblivio.audits.report import cells
from oblivio.audits.report.charts import Absent, Chart, chart_data
from oblivio.audits.report.drawing import svg
from oblivio.audits.report.text import share
from oblivio.audits.verdict import named
from oblivio.audits.words import said

PLACES = {"gone": ("scatter", "losses", "relearning"), "alike": ("by_class", "cka_forget", "cka", "cka_original")}
GOALS = {
    "retrained": "so that the model is like one that never learned them",
    "clean": "so that the model is like one that was never given manipulated rows",
    "chance": "so that the model is at chance on them",
}
GUARANTEES = {
    "exact": "The method does not use the forgotten rows, or what was learned from them, to make its result: the "
    "guarantee lies in how the model was made, and this audit is a check of it.",
    "certified": "The method comes with a proof of how far its result can be from that of retraining, under the "
    "assumptions that its paper states: this audit is a check of it, and of what it assumes.",
    "empirical": "Nothing is proved about the method. What is known of its result is what this audit measured: these "
    "figures, on these rows, with these attacks.",
}
LIMITS = (
    "An attack that was not made. That those above find nothing does not prove that none would.",
    "Copies: the original, its checkpoints and its training rows may lie elsewhere, and models trained from it "
    "elsewhere too.",
    "What other rows tell: rows that resemble the forgotten ones and were not named stay learned.",
    "Another recipe. Retrained models show what not learning the rows means for the recipe they were made by.",
    "Certainty. A band holds the figure of one more retrained model in 95 of 100 cases, if such figures are spread "
    "normally; with few references it is wide, and a small remainder goes unnoticed.",
)


def page(report: Mapping[str, Any]) -> str:
    """The page of a report; a pure function of what ``report.json`` holds."""
    charts = chart_data(report)
    questions = [
        {
            "id": key,
            "title": title,
            "rows": cells.figure_rows(report, key),
            "charts": drawn(charts, PLACES.get(key, ())),
        }
        for key, title in QUESTIONS.items()
    ]
    return render(
        "report.html.j2",
        report=report,
        name=named(report, "outcome")[0],
        method=method(report),
        wanted=wanted(report),
        checks=cells.check_rows(report),
        heads=[head for head, _ in cells.columns(report)],
        questions=questions,
        cost=cost(report["cost"]),
        ladder=ladder(report.get("ladder", ())),
        untested=untested(report),
        limits=LIMITS,
        guarantee=GUARANTEES.get(report["guarantee"], ""),
    )


@cache
def templates() -> jinja2.Environment:
    """The templates of all pages; whatever they put into a page is escaped."""
    audits = Path(__file__).parents[1]
    loader = jinja2.FileSystemLoader([audits / "report", audits / "continual"])
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def render(template: str, **facts: Any) -> str:
    """A page. Names of files need not be text: what UTF-8 cannot hold becomes a question mark."""
    return templates().get_template(template).render(**facts).encode("utf-8", "replace").decode()


def drawn(charts: Mapping[str, Chart], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """What a page needs of the charts of these names, where there are such: how to read each, and its picture."""
    found = [charts[name] for name in names if name in charts]
    return [
        {"title": chart.title, "read": chart.read, "svg": None if isinstance(chart, Absent) else svg(chart)}
        for chart in found
    ]


def wanted(report: Mapping[str, Any]) -> str:
    """What was asked: to forget which rows of which data, and to what end."""
    request, data = report["request"], report["data"]
    rows = request["rows"].get("forget")
    what = "rows" if rows is None else f"{rows:,} row{'s' * (rows != 1)}"
    if request["classes"]:
        words = data.get("classes") or ()
        names = [str(words[c]) if c < len(words) else str(c) for c in request["classes"]]
        what += f", all of class{'es' * (len(names) > 1)} {', '.join(names)},"
    source = f"{data.get('name', 'a data set that is not named')} (licence: {data.get('licence', 'not stated')})"
    return f"forget {what} of {source}, {GOALS[request['goal']]}"


def method(report: Mapping[str, Any]) -> str:
    """What the outcome was made by."""
    return str(report["method"].get("name") or named(report, "outcome")[0])


def cost(spent: Mapping[str, Any]) -> list[cells.Row]:
    """What the method took, beside what retraining takes."""
    if not spent:
        return []
    shares, rows = spent.get("of_retraining", {}), sorted(spent["rows"].items())
    each = "; ".join(f"{n:,} of {name}" for name, n in rows)
    lines = [
        ("time", f"{spent['seconds']:.1f} s", "", "seconds"),
        ("rows forwarded", f"{sum(n for _, n in rows):,}", each, "rows"),
        ("retained rows among them", f"{spent['rows'].get('retain', 0):,}", "", ""),
        ("peak memory of the process", f"{spent['peak_bytes'] / 2**20:,.0f} MiB", "", ""),
    ]
    return [
        cells.Row("", name, [cells.Cell("took", text, small), _ratio(shares.get(of))])
        for name, text, small, of in lines
    ]


def ladder(rungs: Sequence[Mapping[str, Any]]) -> list[cells.Row]:
    """Every method on the ladder: its verdict, its cost beside retraining, and the reason."""
    return [
        cells.Row("", rung["method"], [
            cells.Cell("attempt", str(rung["attempt"] or "–")), cells.Cell("verdict", rung["word"]),
            cells.Cell("expected", share(rung["expected"])), cells.Cell("took", share(rung["cost"])),
            cells.Cell("why", rung["reason"]),
        ])
        for rung in rungs
    ]  # fmt: skip


def _ratio(share: float | None) -> cells.Cell:
    head = "of retraining"
    return cells.Cell(head, "not known", mark="weak") if share is None else cells.Cell(head, f"{100 * share:.1f}%")


def untested(report: Mapping[str, Any]) -> list[cells.Row]:
    """Every figure that says nothing here, and why: it does not apply, it failed, or the original too passes it."""
    request, known = report["request"], {figure["id"]: figure for figure in report["figures"]}
    silent = [f for f in report["figures"] if f["state"] != "figure"]
    blind = [check["figure"] for check in report["verdict"]["checks"] if check["power"] is False]
    why = "no power on this request: it takes the original itself for a model that never learned the rows"
    return [
        *(
            cells.Row("", said(f, request), why=f"{f['state']}: {f['why']}", mark=cells.marked(f["state"]))
            for f in silent
        ),
        *(cells.Row("", said(known[name], request), why=why, mark="weak") for name in blind),
    ]
