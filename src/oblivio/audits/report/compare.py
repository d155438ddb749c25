"""Several outcomes of one request beside each other: as text, and as one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from oblivio.audits.report import cells
from oblivio.audits.report.charts import relearning, scatter, similarity
from oblivio.audits.report.page import drawn, render, wanted
from oblivio.audits.report.text import HEADS
from oblivio.audits.verdict import named
from oblivio.audits.words import aligned
from oblivio.core.errors import BadInput

Named = Sequence[tuple[str, Mapping[str, Any]]]
SHARED = ("original", "reference")  # kinds of models that reports on one request have in common
SIGNS = {"ACCEPTED": "✓", "REJECTED": "✕", "INCONCLUSIVE": "?"}
LOOKS = {"ACCEPTED": "good", "REJECTED": "bad", "INCONCLUSIVE": "open"}
TIME = "time"
CLOSE = 1e-6  # relative: the same model on another machine gives the same figure but for its last digits


def compare(reports: Named) -> str:
    """One page for outcomes of one request, each with its name.

    Raises:
        BadInput: fewer than two, names that are not apart, or another request, policy, original or other references.
    """
    whole = together(reports)
    charts = {chart.id: chart for chart in (scatter(whole), relearning(whole), *similarity(whole))}
    ids = judged(whole)
    rows = [*(_row(name, report, ids) for name, report in reports), *_known(whole, ids)]
    return render(
        "compare.html.j2", report=whole, wanted=wanted(whole), reports=reports, charts=drawn(charts, tuple(charts)),
        rows=rows, heads=["verdict", *map(_head, ids), TIME],
    )  # fmt: skip


def table(reports: Named) -> str:
    """The same as text: a line for each outcome, then the original and what the references agree on.

    Raises:
        BadInput: as ``compare``.
    """
    whole = together(reports)
    ids, request = judged(whole), whole["request"]
    rows = [*(_row(name, report, ids) for name, report in reports), *_known(whole, ids)]
    title = f"{request['figure']}{' in %' if request['higher'] else ''}"
    return aligned([[title, "verdict", *map(_head, ids)], *([r.name, *(c.text for c in r.cells[:-1])] for r in rows)])


def together(reports: Named) -> dict[str, Any]:
    """One report with all outcomes, under their names, for drawing: the first, and the others' outcomes in it.

    Controls are made from an outcome, and left out. Raises BadInput as ``compare``.
    """
    if len(reports) < 2:
        raise BadInput("a comparison needs two reports or more")
    first = reports[0][1]
    for name, report in reports[1:]:
        _check_same(reports[0][0], first, name, report)
    shared = _shared(first)
    names = [*(name for name, _ in reports), *(subject["name"] for subject in shared)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"two models are called {', '.join(twice)}; give each outcome a name of its own")
    outcomes = [{"name": name, "kind": "outcome"} for name, _ in reports]
    figures = [_joined(figure, reports) for figure in first["figures"]]
    return {**first, "subjects": [*outcomes, *shared], "figures": figures}


def _joined(figure: Mapping[str, Any], reports: Named) -> dict[str, Any]:
    """A figure with the values of every report's outcome; it is one as soon as any report has it."""
    found = [(name, report, _figure(report, figure["id"])) for name, report in reports]
    have = [(name, report, each) for name, report, each in found if each is not None and each["state"] == "figure"]
    if not have:
        return dict(figure)
    _, report, one = have[0]
    values = {s["name"]: one["values"][s["name"]] for s in _shared(report) if s["name"] in one["values"]}
    for name, report, each in have:
        if (mine := each["values"].get(named(report, "outcome")[0])) is not None:
            values[name] = mine
    return {**one, "values": values}


def _shared(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [subject for subject in report["subjects"] if subject["kind"] in SHARED]


def _figure(report: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((figure for figure in report["figures"] if figure["id"] == name), None)


# --- whether they can be compared


def _check_same(one: str, first: Mapping[str, Any], other: str, second: Mapping[str, Any]) -> None:
    """Raises BadInput that says which two reports differ, and in what."""
    found = [*_other_request(first, second), *_other_policy(first, second)] or _other_models(first, second)
    if found:
        raise BadInput(f"{one} and {other} cannot be compared: {'; '.join(found)}")


def _other_request(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    a, b = ({f"request.{key}": value for key, value in r["request"].items()} for r in (first, second))
    if all("name" in report["data"] for report in (first, second)):
        a["data"], b["data"] = first["data"]["name"], second["data"]["name"]
    return [f"{key} is {a.get(key)} and {b.get(key)}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def _other_policy(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    a, b = ({rule["figure"]: rule for rule in report["policy"]} for report in (first, second))
    unlike = [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
    return [f"they are judged by other rules for {', '.join(unlike)}"] if unlike else []


def _other_models(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What tells originals and references of one report from those of another: their names, else their figures."""
    a, b = ([subject["name"] for subject in _shared(report)] for report in (first, second))
    if a != b:
        return [f"one is held against {', '.join(a)}, the other against {', '.join(b)}"]
    for figure in first["figures"]:
        beside = _figure(second, figure["id"]) or {"values": {}}
        for name in a:
            mine, theirs = (each["values"].get(name) for each in (figure, beside))
            if mine and theirs and not _close(mine["value"], theirs["value"]):
                values = f"{mine['value']:g} and {theirs['value']:g}"
                return [f"{name} is another model: its figure {figure['id']} is {values}"]
    return []


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)


# --- the table


def judged(whole: Mapping[str, Any]) -> list[str]:
    """Ids of the figures of the policy that at least one outcome has."""
    have = {figure["id"] for figure in whole["figures"] if figure["state"] == "figure"}
    return [rule["figure"] for rule in whole["policy"] if rule["figure"] in have]


def _head(name: str) -> str:
    return HEADS.get(name, name)


def _row(name: str, report: Mapping[str, Any], ids: Sequence[str]) -> cells.Row:
    """An outcome: its verdict, its figures with what they may be where they are off, and what it cost."""
    word = report["verdict"]["word"]
    checks = {check["figure"]: check for check in report["verdict"]["checks"]}
    verdict = cells.Cell("verdict", f"{SIGNS[word]}\N{NO-BREAK SPACE}{word}", mark=LOOKS[word])
    return cells.Row("", name, [verdict, *(_checked(checks[each], report) for each in ids), _time(report)])


def _checked(check: Mapping[str, Any], report: Mapping[str, Any]) -> cells.Cell:
    head, figure = _head(check["figure"]), _figure(report, check["figure"])
    if check["value"] is None or figure is None:
        return cells.Cell(head, "–", check["why"], "weak")
    text = cells.exact(check["value"], figure, report)
    if not check["good"]:
        return cells.Cell(head, f"✕ {text}", cells.allowed(check, figure, report), "bad")
    return cells.Cell(head, f"✓ {text}", "no power" if check["power"] is False else "")


def _time(report: Mapping[str, Any]) -> cells.Cell:
    spent = report["cost"]
    if not spent:
        return cells.Cell(TIME, "not known", mark="weak")
    share = spent.get("of_retraining", {}).get("seconds")
    return cells.Cell(TIME, f"{spent['seconds']:.1f} s", "" if share is None else f"{100 * share:.1f}% of retraining")


def _known(whole: Mapping[str, Any], ids: Sequence[str]) -> list[cells.Row]:
    """The models that outcomes are held against: the original, and what the references agree on."""
    held = [column for column in cells.columns(whole) if column[0] not in named(whole, "outcome")]
    none = [cells.Cell(head, "–", mark="weak") for head in ("verdict", TIME)]
    return [cells.Row("", name, [none[0], *_values(whole, ids, names), none[1]]) for name, names in held]


def _values(whole: Mapping[str, Any], ids: Sequence[str], names: Sequence[str]) -> list[cells.Cell]:
    return [cells.value_cell(_head(each), _figure(whole, each) or {"values": {}}, names, whole) for each in ids]
