"""What stands in the tables of a page: every figure of every model in words, and nowhere nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oblivio.audits.verdict import named
from oblivio.audits.words import agreed, number, said, sign


@dataclass(frozen=True)
class Cell:
    """A place in a table.

    Attributes:
        head: what heads its column; on a narrow screen it stands beside the cell.
        text: what is said.
        small: what is said less loudly: an interval, a range, a note.
        mark: how it looks: ``good``, ``bad``, ``weak``, or as any other.
    """

    head: str
    text: str
    small: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table: of the thing called ``name`` its ``cells``, or in place of all of them ``why`` it has none."""

    id: str
    name: str
    cells: Sequence[Cell] = ()
    why: str = ""
    mark: str = ""


def figure_rows(report: Mapping[str, Any], question: str) -> list[Row]:
    """A line for each figure that helps to answer a question: outcomes, original, references, controls."""
    return [_figure_row(report, figure) for figure in report["figures"] if figure["question"] == question]


def _figure_row(report: Mapping[str, Any], figure: Mapping[str, Any]) -> Row:
    name = said(figure, report["request"])
    if figure["state"] != "figure":
        return Row(figure["id"], name, why=f"{figure['state']}: {figure['why']}", mark=marked(figure["state"]))
    return Row(figure["id"], name, [value_cell(head, figure, names, report) for head, names in columns(report)])


def marked(state: str) -> str:
    """How the state of a figure without values looks."""
    return "bad" if state == "failed" else "weak"


def value_cell(head: str, figure: Mapping[str, Any], names: Sequence[str], report: Mapping[str, Any]) -> Cell:
    """The figure of one model, or what several agree on, or that it was not measured on them."""
    found = [figure["values"][name] for name in names if name in figure["values"]]
    if not found:
        return Cell(head, "not measured on it", mark="weak")
    if len(found) == 1:
        return Cell(head, exact(found[0]["value"], figure, report), _beside(found[0], figure, report))
    values = [each["value"] for each in found]
    span = " to ".join(number(v, figure["unit"], report["request"]) for v in (min(values), max(values)))
    return Cell(head, summary(values, figure, report), span)


def columns(report: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Heads of the columns and the models in each: every model by itself but the references, which stand together."""
    references = named(report, "reference")
    alone = {kind: [(name, [name]) for name in named(report, kind)] for kind in ("outcome", "original", "control")}
    together = [(f"{len(references)} retrained", references)] if references else []
    return [*alone["outcome"], *alone["original"], *together, *alone["control"]]


def exact(value: float, figure: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """A value with its sign."""
    return f"{number(value, figure['unit'], report['request'])}{sign(figure['unit'], report['request'])}"


def summary(values: Sequence[float], figure: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Mean ± standard deviation over two models or more."""
    unit, request = figure["unit"], report["request"]
    mean, spread = agreed(values, unit, request)
    return f"{mean}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{spread}{sign(unit, request)}"


def _beside(value: Mapping[str, Any], figure: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The interval over rows, and what there is to know of the value."""
    unit, request = figure["unit"], report["request"]
    ends = [value.get("low"), value.get("high")]
    interval = "" if None in ends else f"[{', '.join(number(end, unit, request) for end in ends)}]"
    return "; ".join(part for part in (interval, value.get("note")) if part)


# --- checks


def check_rows(report: Mapping[str, Any]) -> list[Row]:
    """A line for each rule of the policy: the outcome's figure, where it may lie, the original's, and what it tells."""
    return [_check_row(report, check) for check in report["verdict"]["checks"]]


def _check_row(report: Mapping[str, Any], check: Mapping[str, Any]) -> Row:
    figure = next((f for f in report["figures"] if f["id"] == check["figure"]), None)
    if figure is None or check["value"] is None:
        state = "does not apply" if figure is None or figure["state"] == "figure" else figure["state"]
        name = check["figure"] if figure is None else said(figure, report["request"])
        return Row(check["figure"], name, why=f"{state}: {check['why']}", mark=marked(state))
    return Row(check["figure"], said(figure, report["request"]), [
        Cell("after forgetting", exact(check["value"], figure, report)),
        Cell("may lie", allowed(check, figure, report)),
        Cell("original", _of_original(figure, report)),
        _power(check),
        Cell("result", *(("✓ inside", "", "good") if check["good"] else ("✕ outside", "", "bad"))),
    ])  # fmt: skip


def allowed(check: Mapping[str, Any], figure: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The band in words."""
    unit, request = figure["unit"], report["request"]
    low, high = (number(check[end], unit, request) for end in ("low", "high"))
    words = {"both": f"{low} to {high}", "high": f"up to {high}", "low": f"from {low}"}[check["side"]]
    return f"{words}{sign(unit, request)}"


def _of_original(figure: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    value = figure["values"].get(named(report, "original")[0])
    return "not measured on it" if value is None else exact(value["value"], figure, report)


def _power(check: Mapping[str, Any]) -> Cell:
    head = "power"
    if check["power"] is None:
        return Cell(head, "it is about what stays", mark="weak")
    if check["power"]:
        return Cell(head, "can tell the original", f"by {check['about']}")
    return Cell(head, "no power on this request", f"by {check['about']}", "weak")
