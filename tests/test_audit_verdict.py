"""Bands, policies and the verdict: what is accepted, what is rejected, and what stays open."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from oblivio.audits import policy as policies
from oblivio.audits.bands import band
from oblivio.audits.policy import POLICIES, Rule
from oblivio.audits.probe import known
from oblivio.audits.report import Report
from oblivio.audits.verdict import judge
from oblivio.core.errors import BadInput

RULES = [
    Rule("forget", "both", 0.02, about="outputs"),
    Rule("linear_probe", "both", 0.02, about="features"),
    Rule("kept", "low", 0.01),
]
NAMES = {"outcome": "outcome", "original": "original", "r1": "reference", "r2": "reference", "r3": "reference"}


def made(rules: list[Rule] = RULES, goal: str = "retrained", higher: bool = True, **figures: Any) -> dict[str, Any]:
    """A report whose outcome is at the references and whose original is not; ``figures`` in the order of NAMES."""
    usual = {"forget": [0.5, 1.0, 0.5, 0.49, 0.51], "linear_probe": [0.7, 0.9, 0.7, 0.71, 0.69],
             "kept": [0.9, 0.9, 0.9, 0.9, 0.9]}  # fmt: skip
    found = []
    for name, values in {**usual, **figures}.items():
        each = {n: {"value": v} for n, v in zip(NAMES, values, strict=False)} if isinstance(values, list) else {}
        state, why = ("figure", "") if isinstance(values, list) else values
        found.append({"id": name, "says": f"on {name}", "unit": "task", "state": state, "why": why, "values": each,
                      "question": "gone", "about": ""})  # fmt: skip
    return {
        "request": {"goal": goal, "chance": 0.1, "figure": "accuracy" if higher else "squared error", "higher": higher},
        "subjects": [{"name": n, "kind": k} for n, k in NAMES.items()],
        "figures": found, "policy": policies.to_json(rules), "reproduced": None,
    }  # fmt: skip


def without(report: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**report, "subjects": [s for s in report["subjects"] if s["name"] not in names]}


# --- bands


def test_a_band_is_the_prediction_interval_of_one_more() -> None:
    found = band([1.0, 2.0, 4.0], 0.0)
    half = t.ppf(0.975, 2) * np.std([1, 2, 4], ddof=1) * math.sqrt(4 / 3)
    assert (found.low, found.high) == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert found.number == 3


def test_one_more_normal_draw_lies_inside_as_often_as_was_said() -> None:
    draws = np.random.default_rng(0).normal(3, 2, (4000, 4))
    inside = [not band(row[:3].tolist(), 0.0).outside(row[3], "both") for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(0, 1))
def test_a_band_is_about_the_mean_and_never_narrower_than_the_tolerance(values: list[float], tolerance: float) -> None:
    found = band(values, tolerance)
    assert found.low <= found.mean <= found.high
    assert found.high - found.mean >= tolerance - 1e-12
    assert not found.outside(found.mean, "both")


def test_a_band_of_one_value_has_no_width() -> None:
    with pytest.raises(ValueError, match="two values"):
        band([1.0], 0.1)


# --- policies


def test_every_rule_of_every_policy_is_about_a_probe() -> None:
    probes = known()
    assert [r.figure for rules in POLICIES.values() for r in rules if r.figure not in probes] == []
    assert [r.figure for r in POLICIES["retrained"] if r.about and probes[r.figure].about != r.about] == []


@pytest.mark.parametrize("goal", ["retrained", "chance"])
def test_a_policy_looks_at_outputs_and_at_features(goal: str) -> None:
    assert {rule.about for rule in POLICIES[goal]} >= {"outputs", "features"}


def test_tolerances_are_the_users() -> None:
    rules = policies.policy("retrained", {"kept": 0.5})
    assert next(rule.tolerance for rule in rules if rule.figure == "kept") == 0.5
    with pytest.raises(BadInput, match="not judged by 'keptt'; did you mean 'kept'"):
        policies.policy("retrained", {"keptt": 0.5})
    with pytest.raises(BadInput, match="0 or more"):
        policies.policy("retrained", {"kept": -0.1})
    report = made(policies.policy("retrained", {"kept": 0.5}), kept=[0.5, 0.9, 0.9, 0.9, 0.9])
    assert judge(report).word == "ACCEPTED"


# --- the verdict


def test_what_stands_among_the_references_is_accepted() -> None:
    verdict = judge(made())
    assert verdict.word == "ACCEPTED"
    assert [check.good for check in verdict.checks] == [True] * 3
    assert [check.power for check in verdict.checks] == [True, True, None]


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (
            {"forget": [1.0, 1.0, 0.5, 0.49, 0.51]},
            "accuracy on forget: 100.0%, where models retrained without the rows",
        ),
        ({"forget": [0.0, 1.0, 0.5, 0.49, 0.51]}, "between 45.0 and 55.0"),
        ({"linear_probe": [0.9, 0.9, 0.7, 0.71, 0.69]}, "on linear_probe: 90.0%"),
        ({"kept": [0.8, 0.9, 0.9, 0.9, 0.9]}, "from 89.0"),
    ],
)
def test_what_does_not_is_rejected_with_the_reason(figures: dict[str, Any], words: str) -> None:
    verdict = judge(made(**figures))
    assert verdict.word == "REJECTED"
    assert len(verdict.reasons) == 1
    assert words in verdict.reasons[0]


def test_only_the_bad_side_counts_where_one_is_good() -> None:
    assert judge(made(kept=[1.0, 0.9, 0.9, 0.9, 0.9])).word == "ACCEPTED"
    errors = made([*RULES[:2], Rule("kept", "low", 0.05)], higher=False, kept=[0.5, 0.9, 0.9, 0.9, 0.9])
    assert judge(errors).word == "ACCEPTED"
    worse = made([*RULES[:2], Rule("kept", "low", 0.05)], higher=False, kept=[1.0, 0.9, 0.9, 0.9, 0.9])
    assert judge(worse).word == "REJECTED"


def test_nothing_is_accepted_without_references() -> None:
    verdict = judge(without(made(), "r1", "r2", "r3"))
    assert verdict.word == "INCONCLUSIVE"
    assert "there are no references" in verdict.reasons[0]
    assert "too few references (2)" in judge(without(made(), "r1")).reasons[0]


def test_a_figure_that_takes_the_original_for_a_retrained_model_shows_nothing() -> None:
    blind = made(linear_probe=[0.7, 0.7, 0.7, 0.71, 0.69])
    verdict = judge(blind)
    assert verdict.word == "INCONCLUSIVE"
    assert "a hidden output would not be noticed" in verdict.reasons[0]
    assert "no power" in judge(made(forget=[0.5] * 5)).reasons[0]


def test_a_figure_that_does_not_apply_is_passed_over_and_not_counted_for() -> None:
    rules = [*RULES, Rule("cka", "low", 0.02, about="features")]
    assert judge(made(rules, cka=("does not apply", "no layers"))).word == "ACCEPTED"
    verdict = judge(made(linear_probe=("does not apply", "it has no linear layer")))
    assert verdict.word == "INCONCLUSIVE"
    assert verdict.reasons == ["no figure on features applies: it has no linear layer"]


def test_a_probe_that_failed_is_in_the_way_of_acceptance_alone() -> None:
    broken = ("failed", "ValueError: no")
    assert judge(made(uuef=broken)).reasons == ["the probe uuef failed: ValueError: no"]
    assert judge(made(uuef=broken)).word == "INCONCLUSIVE"
    assert judge(made(uuef=broken, kept=[0.1, 0.9, 0.9, 0.9, 0.9])).word == "REJECTED"


def test_a_recipe_that_makes_other_models_is_no_standard() -> None:
    report = {**made(kept=[0.1, 0.9, 0.9, 0.9, 0.9]), "reproduced": {"same": False, "why": "another recipe"}}
    verdict = judge(report)
    assert verdict.word == "INCONCLUSIVE"
    assert verdict.reasons[0] == "another recipe"


def test_a_reference_is_judged_beside_the_others() -> None:
    report = made(forget=[0.5, 1.0, 0.9, 0.5, 0.51])
    report["subjects"].append({"name": "r4", "kind": "reference"})
    for figure in report["figures"]:
        figure["values"]["r4"] = figure["values"]["r2"]
    assert judge(report, "r1").word == "REJECTED"
    assert judge(report, "r2").word == "INCONCLUSIVE"  # r1 makes the band so wide that the original lies in it


CHANCE = [Rule("forget", "high", 0.05, "chance", "outputs"), Rule("recovery", "high", 0.05, "chance", "features"),
          Rule("kept", "low", 0.02, "original")]  # fmt: skip


def test_at_chance_no_reference_is_needed_and_retraining_is_no_standard() -> None:
    at = made(CHANCE, "chance", forget=[0.1, 1.0, 0.5, 0.5, 0.5], recovery=[0.12, 0.9, 0.6, 0.6, 0.6])
    assert judge(without(at, "r1", "r2", "r3")).word == "ACCEPTED"
    above = made(CHANCE, "chance", forget=[0.5, 1.0, 0.5, 0.5, 0.5], recovery=[0.12, 0.9, 0.6, 0.6, 0.6])
    assert judge(above).word == "REJECTED"
    lost = made(CHANCE, "chance", forget=[0.1, 1.0, 0.5, 0.5, 0.5], recovery=[0.12, 0.9, 0.6, 0.6, 0.6],
                kept=[0.8, 0.9, 0.9, 0.9, 0.9])  # fmt: skip
    assert judge(lost).word == "REJECTED"


def test_a_clean_model_is_judged_on_affected_rows_with_true_targets() -> None:
    rules = list(POLICIES["clean"])
    healed = made(rules, "clean", affected=[0.88, 0.1, 0.2, 0.2, 0.2])
    assert judge(healed).word == "ACCEPTED"  # though retraining without the known rows fails
    assert judge(made(rules, "clean", affected=[0.5, 0.1, 0.2, 0.2, 0.2])).word == "REJECTED"
    unknown = judge(made(rules, "clean", affected=("does not apply", "there are no affected rows with targets")))
    assert unknown.word == "INCONCLUSIVE"
    assert "there are no affected rows" in unknown.reasons[0]


@given(st.lists(st.floats(0, 1), min_size=15, max_size=15))
def test_wide_tolerances_reject_nothing_and_a_report_is_judged_alike_after_saving(values: list[float]) -> None:
    figures = {name: values[5 * i : 5 * i + 5] for i, name in enumerate(("forget", "linear_probe", "kept"))}
    wide = [Rule(rule.figure, rule.side, 2.0, rule.against, rule.about) for rule in RULES]
    assert judge(made(wide, **figures)).word != "REJECTED"
    report = Report.of(made(**figures))
    assert judge(json.loads(json.dumps(report))) == report.verdict
