"""Comparisons and searches: ranks, intervals, what is kept and what is made once, ranges, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oblivio import problems
from oblivio.audits.verdict import Check, Verdict
from oblivio.bench import comparison, standing, tuning
from oblivio.bench.comparison import Plan, compare, distance
from oblivio.core.errors import BadInput
from oblivio.problems import table

NAMES = ["ssd", "finetune", "npo"]


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A problem that trains in a moment, and a cache of its own."""
    small = problems.spec("digits-class").but(recipe={"epochs": 3}, options={"hidden": [16]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(table.TABLE, "tiny", small)
        patch.setitem(table.TABLE, "tiny-rows", problems.spec("digits-random").but(recipe={"epochs": 3}))
        patch.setenv("OBLIVIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def found(tiny: None) -> standing.Standing:
    return compare(Plan("tiny", NAMES, 2, 3))


def test_every_method_has_a_line_and_the_best_is_first(found: standing.Standing) -> None:
    assert sorted(line.name for line in found.lines) == sorted(NAMES)
    means = [sum(line.distance) / len(line.distance) for line in found.lines]
    assert means == sorted(means)
    assert all(len(line.words) == 2 and len(line.cost) == 2 for line in found.lines)
    assert len(found.references) == 3
    assert {"forget", "kept"} <= found.original.figures.keys()


def test_importance_and_outputs_of_the_start_are_made_once_for_each_model(found: standing.Standing) -> None:
    assert {(what.partition(" ")[0], on) for _, what, on, _ in found.made} >= {
        ("importance", "forget"), ("importance", "retain")
    }  # fmt: skip
    assert {times for *_, times in found.made} == {1}


def test_a_comparison_that_is_done_is_not_done_again(found: standing.Standing, monkeypatch: Any) -> None:
    monkeypatch.setattr(comparison, "apply", None)
    monkeypatch.setattr(comparison, "audit", None)
    assert compare(Plan("tiny", NAMES, 2, 3)).to_json() == found.to_json()


def test_a_comparison_that_was_stopped_runs_no_finished_method_again(
    found: standing.Standing, monkeypatch: Any
) -> None:
    run, ran = comparison.apply, []

    def counted(plan: Any, start: Any, place: Path) -> Any:
        done = place.exists()
        result = run(plan, start, place)
        ran.append(done)
        return result

    monkeypatch.setattr(comparison, "apply", counted)
    more = compare(Plan("tiny", [*NAMES, "grad_diff"], 2, 3))
    assert ran.count(False) == 2  # the new one, on both seeds
    same = {line.name: line.figures["forget"] for line in found.lines}
    assert all(line.figures["forget"] == same[line.name] for line in more.lines if line.name in same)


def test_a_method_that_the_problem_does_not_allow_is_listed_with_the_reason() -> None:
    made = comparison.Seed(Plan("tiny-rows", ["ssd", "npo"]), 0)
    assert made.names == ["npo"]
    assert "does not serve" in made.refused["ssd"]


def test_another_seed_problem_or_method_has_another_key() -> None:
    keys = {comparison.Seed(Plan(problem, NAMES), seed).key(name)
            for problem in ("tiny", "tiny-rows") for seed in (0, 1) for name in NAMES}  # fmt: skip
    assert len(keys) == 12


def test_the_standing_as_json_rows_and_a_drawing(found: standing.Standing) -> None:
    made = found.to_json()
    assert list(made["methods"]) == [line.name for line in found.lines]
    rows = standing.rows(found)
    assert [row[0] for row in rows[:3]] == list(made["methods"])
    assert all(len(row) == len(standing.heads(found)) for row in rows)
    drawn = standing.svg(found)
    assert all(name in drawn for name in NAMES)


def check(value: float | None, side: str = "both") -> Check:
    return Check("a", value, 0.4, 0.6, side, True, None, "", "")


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([check(0.5)], 0.0),
        ([check(0.7)], 1.0),
        ([check(0.2)], 2.0),
        ([check(0.2, "high")], 0.0),
        ([check(0.7, "low")], 0.0),
        ([check(0.7), check(0.5), check(None)], 0.5),
    ],
)
def test_the_distance_counts_tolerances_outside_of_the_bands(checks: list[Check], expected: float) -> None:
    report = {"policy": [{"figure": "a", "tolerance": 0.1}]}
    assert distance(Verdict("REJECTED", [], checks), report) == pytest.approx(expected)


def test_the_interval_is_that_of_student() -> None:
    mean, half = standing.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.302653 / math.sqrt(3), rel=1e-5))
    assert standing.said([0.5], 2) == "0.50"
    assert standing.said([], 2) == "–"


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan("tinny", NAMES), "there is no problem 'tinny'"),
        (Plan("tiny", ["sdd"]), "there is no method 'sdd'"),
        (Plan("tiny", ["sam"]), "of the kind piece"),
        (Plan("tiny", NAMES, 1), "two or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(plan: Plan, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        compare(plan)


# --- tuning


def test_the_space_is_what_a_method_declares() -> None:
    space = tuning.space("salun", {})
    assert space["keep"].high == 1.0  # no more than the annotation allows
    assert (space["lr"].low, space["lr"].high) == (pytest.approx(5e-4), pytest.approx(0.05))
    assert space["epochs"] == tuning.Range(1, 9, True)
    assert "batch" not in space
    assert tuning.space("opc", {})["site"].words == ("features", "logits")


def test_ranges_can_be_given_and_names_that_are_no_settings_are_refused() -> None:
    assert tuning.space("npo", {"lr": "1e-4:1e-2"})["lr"] == tuning.Range(1e-4, 1e-2)
    assert tuning.space("opc", {"site": "logits"})["site"].words == ["logits"]
    for bad, words in (({"rl": "1:2"}, "has no setting 'rl'"), ({"lr": "a:b"}, "LOW:HIGH"), ({"lr": "2:1"}, "above")):
        with pytest.raises(BadInput, match=words):
            tuning.space("npo", bad)


@given(st.sampled_from(["npo", "salun", "ssd", "opc", "l1_sparse", "grad_diff", "finetune", "relabel"]))
def test_defaults_lie_inside_of_their_ranges(name: str) -> None:
    for setting, each in tuning.space(name, {}).items():
        default = tuning.default(name, setting)
        assert default in each.words if each.words else each.low <= default <= each.high


def test_a_search_tries_the_defaults_first_and_finds_what_is_no_worse() -> None:
    pytest.importorskip("optuna")
    found = tuning.tune("ssd", ["tiny"], trials=3, seeds=[100])
    assert found.tried[0]["settings"] == {"alpha": 3.0, "strength": 0.3}
    assert found.default == found.tried[0]["distance"]
    assert found.distance == min(each["distance"] for each in found.tried) <= found.default
    again = tuning.tune("ssd", ["tiny"], trials=3, seeds=[100])
    assert again == found


def test_test_rows_are_not_looked_at_in_a_search() -> None:
    case = problems.load("tiny", 100, 1)
    there = tuning._validated(case.start)
    assert there.source("test").ids.tolist() == case.start.source("valid").ids.tolist()
    assert case.start.source("test") is not there.source("test")


def test_a_method_that_serves_none_of_the_problems_is_refused() -> None:
    with pytest.raises(BadInput, match="serves none"):
        tuning.tune("ssd", ["tiny-rows"], trials=1, seeds=[100])
