"""Passes that several methods need are made once, where they are kept, and are booked for each method all the same."""

from __future__ import annotations

import torch

from oblivio import methods
from oblivio.contracts.problems import TABLE
from oblivio.core.importance import fisher
from oblivio.core.known import Known
from oblivio.core.problem import Problem
from oblivio.core.run import Run


def problem() -> Problem:
    made = TABLE["digits"].problem()
    made.known = Known()
    return made


def test_importance_and_outputs_of_the_start_are_made_once_for_all_copies() -> None:
    start = problem()
    for name in ("ssd", "ssd", "npo", "npo"):
        Run(methods.registry.get(name)(), start.copy()).go()
    assert start.known is not None
    assert set(start.known.made.values()) == {1}
    assert {source for _, source, _ in start.known.made} >= {"forget", "retain"}


def test_what_is_known_changes_neither_the_result_nor_the_cost() -> None:
    start, alone = problem(), TABLE["digits"].problem()
    for name in ("ssd", "npo"):
        plan = methods.registry.get(name)()
        runs = [Run(plan, each.copy()).go() for each in (start, start, alone)]
        weights = [torch.cat([w.flatten() for w in run.model.parameters()]) for run in runs]
        assert torch.equal(weights[0], weights[2])
        assert torch.equal(weights[1], weights[2])
        assert runs[1].passes == runs[2].passes


def test_other_weights_or_rows_are_not_known() -> None:
    start = problem()
    before = fisher(start, "forget")
    with torch.no_grad():
        next(iter(start.model.parameters())).add_(0.1)
    after = fisher(start, "forget")
    assert any(not torch.equal(before[n], after[n]) for n in before)
    other = start.copy()
    other.sources["forget"] = start.source("forget").take(range(3))
    assert any(not torch.equal(after[n], value) for n, value in fisher(other, "forget").items())
    assert start.known is not None
    assert sum(start.known.made.values()) == 3


def test_a_value_that_was_given_out_may_be_changed() -> None:
    start = problem()
    given = fisher(start, "forget")
    given.clear()
    assert fisher(start, "forget")
