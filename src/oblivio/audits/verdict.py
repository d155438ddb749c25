"""The verdict: a function of a report's figures and its policy alone, so that anybody can work it out again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from oblivio.audits.bands import Band, around, band
from oblivio.audits.words import number, said, sign

Word = Literal["ACCEPTED", "REJECTED", "INCONCLUSIVE"]
LEAST = 3  # references, before a model is accepted for the goal ``retrained``


@dataclass(frozen=True)
class Check:
    """A rule held against a report.

    Attributes:
        figure: id of the probe.
        value: the outcome's figure; None where it does not apply.
        low, high: the band.
        side: on which side of the band it may not lie.
        good: whether it does not lie there.
        power: whether the original does: a figure that takes the original for a model that never learned shows nothing
            in favour of another. None for rules on what is to stay.
        about: outputs or features, of rules with power.
        why: what it says, in a sentence.
    """

    figure: str
    value: float | None
    low: float | None
    high: float | None
    side: str
    good: bool
    power: bool | None
    about: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """ACCEPTED, REJECTED or INCONCLUSIVE, with reasons in plain words and the checks behind them."""

    word: Word
    reasons: Sequence[str]
    checks: Sequence[Check]

    def to_json(self) -> dict[str, Any]:
        """As a report holds it."""
        return asdict(self)


def judge(report: Mapping[str, Any], outcome: str | None = None) -> Verdict:
    """The verdict on a report.

    Args:
        report: with ``request``, ``subjects``, ``figures``, ``policy``, and ``reproduced`` (see ``Report``).
        outcome: name of the model to be judged; default: the outcome. A reference is judged as if it were the outcome
            beside the other references, which tells how often the policy rejects a model that truly never learned.
    """
    figures = {figure["id"]: figure for figure in report["figures"]}
    name = outcome or named(report, "outcome")[0]
    references = [each for each in named(report, "reference") if each != name]
    checks = [_check(rule, figures.get(rule["figure"]), report, name, references) for rule in report["policy"]]
    void = _void(report, references)
    wrong = [check.why for check in checks if not check.good]
    failed, powerless = _failed(report), _powerless(checks)
    if void:
        return Verdict("INCONCLUSIVE", [*void, *wrong, *failed], checks)
    if wrong:
        return Verdict("REJECTED", [*wrong, *failed], checks)
    if failed or powerless:
        return Verdict("INCONCLUSIVE", [*failed, *powerless], checks)
    return Verdict("ACCEPTED", [_praise(report, checks)], checks)


def named(report: Mapping[str, Any], kind: str) -> list[str]:
    """Names of the models of a kind, in the report's order."""
    return [subject["name"] for subject in report["subjects"] if subject["kind"] == kind]


def band_of(rule: Mapping[str, Any], figure: Mapping[str, Any], report: Mapping[str, Any], name: str,
            references: Sequence[str]) -> Band | None:  # fmt: skip
    """Where a figure may lie; None where nothing is known to hold it against."""
    values, tolerance, against = figure["values"], rule["tolerance"], rule["against"]
    if against == "level":
        return Band(tolerance, 1.0, tolerance, 0.0, 0)
    if against == "references":
        theirs = [values[each]["value"] for each in references if each in values]
        return band(theirs, _absolute(tolerance, figure, report, theirs)) if len(theirs) > 1 else None
    if against == "chance":
        return around(report["request"]["chance"], tolerance) if report["request"]["chance"] is not None else None
    of = figure if against == "original" else next(f for f in report["figures"] if f["id"] == "kept")
    centre = of["values"].get(named(report, "original")[0] if against == "original" else name)
    return None if centre is None else around(centre["value"], _absolute(tolerance, of, report, [centre["value"]]))


def _absolute(tolerance: float, figure: Mapping[str, Any], report: Mapping[str, Any], values: Sequence[float]) -> float:
    """Errors have any unit, so their tolerances are shares of what they are held against."""
    relative = figure["unit"] == "task" and not report["request"]["higher"]
    return tolerance * abs(sum(values) / len(values)) if relative else tolerance


def _check(rule: Mapping[str, Any], figure: Mapping[str, Any] | None, report: Mapping[str, Any], name: str,
           references: Sequence[str]) -> Check:  # fmt: skip
    side = _side(rule["side"], figure, report)
    found = figure["values"].get(name) if figure is not None and figure["state"] == "figure" else None
    limits = None if found is None or figure is None else band_of(rule, figure, report, name, references)
    if found is None or limits is None or figure is None:
        why = (figure or {}).get("why") or "there is nothing to hold it against"
        return Check(rule["figure"], None, None, None, side, True, None, rule["about"], why)
    limits = limits.within(*_range(figure["unit"], report))
    value, power = found["value"], None
    if rule["about"]:
        before = figure["values"].get(named(report, "original")[0])
        power = before is not None and limits.outside(before["value"], side)
    good = not limits.outside(value, side)
    why = _sentence(rule, figure, report, value, limits, side)
    return Check(rule["figure"], value, limits.low, limits.high, side, good, power, rule["about"], why)


def _range(unit: str, report: Mapping[str, Any]) -> tuple[float, float]:
    """What figures of a unit can be at all; bands are shown no wider."""
    if unit == "task":
        return (0.0, 1.0) if report["request"]["higher"] else (0.0, math.inf)
    return (0.0, 1.0) if unit in ("share", "auc", "similarity", "p") else (-math.inf, math.inf)


def _side(side: str, figure: Mapping[str, Any] | None, report: Mapping[str, Any]) -> str:
    """Of errors the other side is the bad one."""
    turned = figure is not None and figure["unit"] == "task" and not report["request"]["higher"]
    return {"high": "low", "low": "high"}.get(side, side) if turned else side


AIM = {
    "references": "models retrained without the rows lie", "original": "the original's own figure allows",
    "chance": "chance allows", "kept": "its figure on other test rows allows", "level": "the level of the test allows",
}  # fmt: skip


def _sentence(rule: Mapping[str, Any], figure: Mapping[str, Any], report: Mapping[str, Any], value: float, limits: Band,
              side: str) -> str:  # fmt: skip
    request, unit = report["request"], figure["unit"]
    low, high, mine = (number(each, unit, request) for each in (limits.low, limits.high, value))
    where = {"both": f"between {low} and {high}", "high": f"up to {high}", "low": f"from {low}"}[side]
    return f"{said(figure, request)}: {mine}{sign(unit, request)}, where {AIM[rule['against']]} {where}"


def _void(report: Mapping[str, Any], references: Sequence[str]) -> list[str]:
    """Why there is nothing to judge by, whatever the figures are."""
    if report["request"]["goal"] != "retrained":
        return []
    if not references:
        return ["there are no references: without models retrained without the rows, nothing shows what a model that "
                "never learned them would do"]  # fmt: skip
    if len(references) < LEAST:
        return [f"there are too few references ({len(references)}) to know how much retrained models differ from each "
                f"other; give at least {LEAST}"]  # fmt: skip
    reproduced = report.get("reproduced")
    if reproduced is not None and not reproduced["same"]:
        return [reproduced["why"]]
    return []


def _failed(report: Mapping[str, Any]) -> list[str]:
    return [f"the probe {f['id']} failed: {f['why']}" for f in report["figures"] if f["state"] == "failed"]


def _powerless(checks: Sequence[Check]) -> list[str]:
    """What is missing before the checks show anything: one on outputs and one on features that know the original."""
    words = {
        "outputs": "no figure on outputs can tell the original itself from models that never learned the rows: on this "
        "request the audit has no power",
        "features": "no figure on features can tell the original itself from models that never learned the rows: a "
        "hidden output would not be noticed",
    }
    found = []
    for about, sentence in words.items():
        asked = [check for check in checks if check.about == about]
        if asked and not any(check.power for check in asked):
            silent = all(check.value is None for check in asked)
            found.append(f"no figure on {about} applies: {asked[0].why}" if silent else sentence)
    return found


def _praise(report: Mapping[str, Any], checks: Sequence[Check]) -> str:
    counted, powerful = sum(check.value is not None for check in checks), sum(bool(check.power) for check in checks)
    aim = {
        "retrained": "are where models retrained without the rows lie",
        "clean": "are those of a model that was never poisoned",
        "chance": "are those of a model at chance on the forgotten rows",
    }[report["request"]["goal"]]
    return f"all {counted} figures of the policy {aim}; {powerful} of them can tell the original from such a model"
