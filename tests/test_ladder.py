"""``method: auto``: cheapest first, judged, confirmed beside references that nobody has seen, retraining at the end."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import oblivio as ob
from oblivio import methods
from oblivio.contracts.problems import TABLE
from oblivio.core.errors import BadInput, Stopped
from oblivio.jobs import forget, ladder
from oblivio.jobs.estimate import forwards
from oblivio.jobs.job import Job
from oblivio.jobs.ladder import Climb, Ladder

JOB = {
    "data": {"name": "digits", "valid": 0.1}, "model": {"name": "mlp", "options": {"hidden": [16]}},
    "recipe": {"epochs": 3}, "forget": "class=3", "references": 3,
    "method": {"name": "auto", "settings": {"methods": ["ssd", "grad_diff"], "budget": 5.0}},
    "audit": {"leave_out": ["relearning"]},
}  # fmt: skip


@dataclass
class Fake:
    """An outcome with a verdict and a cost; the second verdict is the one beside fresh references."""

    name: str
    words: Sequence[str]
    rows: int = 100
    rungs: Sequence[Any] = ()
    cost: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cost = {"rows": {"forget": self.rows}}

    @property
    def report(self) -> Any:
        return SimpleNamespace(verdict=SimpleNamespace(word=self.words[0], reasons=[f"because {self.words[0]}"]))

    def climbed(self, rungs: Sequence[Any]) -> Fake:
        return replace(self, rungs=rungs)


def climb(
    verdicts: dict[str, list[str]],
    budget: float = 100.0,
    stops: str = "",
    broken: Exception = Stopped("the loss is nan"),  # noqa: B008
) -> Fake:
    """A climb over these methods on the tiny digits, each with the verdicts it will get, one after the other."""
    problem = TABLE["digits"].problem()

    def attempt(chosen: Any) -> Any:
        if chosen.name == stops:
            raise broken
        return Fake(chosen.name, verdicts[chosen.name])

    def confirm(outcome: Any, before: int) -> Any:
        return replace(outcome, words=outcome.words[1:])

    def exact() -> Any:
        return Fake("retrain", ["ACCEPTED"], 1000)

    found: Any = Climb(problem, Ladder(budget=budget, methods=list(verdicts)), 1000.0, attempt, confirm, exact).go()
    return found


def order(names: Sequence[str]) -> list[str]:
    problem = TABLE["digits"].problem()
    return sorted(names, key=lambda name: (forwards(methods.registry.get(name)(), problem), name))


def test_cheapest_first_and_the_first_that_is_accepted_and_confirmed_is_taken() -> None:
    cheap, middle, dear = order(["grad_ascent", "grad_diff", "finetune"])
    found = climb({dear: ["ACCEPTED"] * 2, cheap: ["REJECTED"], middle: ["ACCEPTED", "ACCEPTED"]})
    assert found.name == middle
    assert [(r["method"], r["word"], r["attempt"]) for r in found.rungs] == [
        (cheap, "REJECTED", 1), (middle, "ACCEPTED", 2), (middle, "ACCEPTED", None)
    ]  # fmt: skip
    assert "had not seen" in found.rungs[-1]["reason"]


def test_what_is_accepted_by_luck_is_not_confirmed_and_the_climb_goes_on() -> None:
    cheap, dear = order(["grad_ascent", "grad_diff"])
    found = climb({cheap: ["ACCEPTED", "REJECTED"], dear: ["INCONCLUSIVE"]})
    assert found.name == "retrain"
    assert [r["word"] for r in found.rungs] == ["ACCEPTED", "REJECTED", "INCONCLUSIVE", "ACCEPTED"]
    assert found.rungs[-1]["attempt"] == 3


def test_the_budget_counts_what_was_spent() -> None:
    cheap, dear = order(["grad_ascent", "finetune"])
    problem = TABLE["digits"].problem()
    needed = forwards(methods.registry.get(dear)(), problem) / 1000
    assert climb({cheap: ["REJECTED"], dear: ["ACCEPTED"] * 2}, budget=needed + 0.05).name == "retrain"
    assert climb({cheap: ["REJECTED"], dear: ["ACCEPTED"] * 2}, budget=needed + 0.15).name == dear


def test_every_method_that_a_request_allows_can_be_estimated() -> None:
    for tiny in ("digits", "diabetes"):
        problem = TABLE[tiny].problem()
        kind = TABLE[tiny].kind
        for name in ladder.candidates():
            if kind in methods.spec(name).tasks:
                assert forwards(methods.registry.get(name)(), problem) > 0, name


def test_a_method_that_breaks_off_is_a_rung_and_the_climb_goes_on() -> None:
    found = climb({"npo": ["REJECTED"]}, stops="npo")
    assert [r["word"] for r in found.rungs] == ["stopped", "ACCEPTED"]
    assert found.rungs[0]["reason"] == "the loss is nan"


def test_a_method_that_refuses_the_rows_as_it_runs_is_no_attempt() -> None:
    found = climb({"npo": ["REJECTED"]}, stops="npo", broken=BadInput("no column 'group'"))
    assert [(r["word"], r["attempt"]) for r in found.rungs] == [("not allowed", None), ("ACCEPTED", 1)]


def test_a_method_that_the_request_does_not_allow_says_why() -> None:
    found = climb({"ssd": ["ACCEPTED"]})
    assert found.rungs[0]["word"] == "not allowed"
    assert "does not serve requests to forget some rows" in found.rungs[0]["reason"]


def test_an_estimate_is_what_is_forwarded_if_nothing_ends_it_early() -> None:
    problem = TABLE["digits"].problem()
    for name in ("finetune", "relabel", "grad_ascent"):
        plan = methods.registry.get(name)(epochs=2)
        outcome = ob.forget(problem, plan)
        assert forwards(plan, problem) == pytest.approx(sum(outcome.cost["rows"].values()), rel=0.15)


@pytest.mark.parametrize(
    ("settings", "references", "words"),
    [
        ({"budgets": 1}, 3, "there is no such field"),
        ({"budget": 0}, 3, "greater than 0"),
        ({"methods": ["sun"]}, 3, "there is no method 'sun'"),
        ({"methods": ["sam"]}, 3, "of the kind piece"),
        ({}, 2, "3 or more"),
    ],
)
def test_a_ladder_that_cannot_be_climbed_is_refused(settings: dict[str, Any], references: int, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ladder.check(settings, references)


def test_pieces_and_missing_references_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for changed, words in (
        ({"method": {"name": "auto", "pieces": ["sam"]}}, "leave out its pieces"),
        ({"references": 0}, "give references: 3"),
    ):
        with pytest.raises(BadInput, match=words):
            forget.run(Job.of(**{**JOB, **changed}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInput, match="recipe="):
        ob.forget(TABLE["digits"].problem(), "auto", references=3)


def bits(outcome: Any) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in outcome.model.state_dict().values()]


def test_a_killed_climb_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = forget.run(Job.of(**JOB), tmp_path / "whole")
    rungs = whole.report["ladder"]
    assert [r["method"] for r in rungs][-1] == "retrain"
    assert whole.report["guarantee"] == "exact"

    def kill(run: Any, stage: Any, step: Any) -> None:
        if "forget" in run.problem.sources and run.steps == 3:
            run.checkpoint()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forget.run(Job.of(**JOB), tmp_path / "killed", watch=[kill])
    again = forget.run(Job.of(**JOB), tmp_path / "killed", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(bits(whole), bits(again), strict=True))
    assert [(r["method"], r["word"]) for r in again.report["ladder"]] == [(r["method"], r["word"]) for r in rungs]
    assert "methods tried" in again.table()
    assert "The ladder" in again.report.html()


def test_from_python_the_model_is_untouched_and_the_report_has_the_ladder() -> None:
    problem = TABLE["digits"].problem()
    before = copy.deepcopy(problem.model.state_dict())
    recipe = {"optimiser": "adam", "lr": 0.01, "epochs": 5, "batch": 32, "schedule": "constant"}
    outcome = ob.forget(problem, "auto", references=3, recipe=recipe, methods=["ssd"], budget=1.0)
    assert outcome.report["ladder"][0]["method"] == "ssd"
    assert all(torch.equal(before[name], value) for name, value in problem.model.state_dict().items())
