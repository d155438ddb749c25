"""The verdict under test, on digits: what has forgotten nothing is rejected, what never learned is accepted.

The same over ten seeds of Fashion-MNIST is the claims ``verdict_class`` and ``verdict_rows``.
"""

from __future__ import annotations

from typing import Any

from oblivio import data
from oblivio.claims.fashion import Case
from oblivio.claims.verdict import ACCURACIES, judged
from oblivio.core.problem import Problem
from oblivio.jobs.cache import trained
from oblivio.jobs.job import Forget
from oblivio.jobs.network import network
from oblivio.jobs.recipe import shipped
from oblivio.jobs.references import retrained
from oblivio.jobs.rows import divide


def case(rows: Any, references: int = 4) -> Case:
    """An original that knows its training rows by heart, and models that never saw those that go."""
    dataset, recipe = data.load("digits"), shipped("mlp")
    net, parts = network("mlp", {}, dataset), divide(dataset, Forget(rows=rows), 0.0, 0)
    original = trained(recipe, net, parts.train, 0, task=dataset.task)
    start = Problem(original.module, task=dataset.task, forget=parts.forget, retain=parts.retain, test=parts.test)
    never = (retrained(i, recipe, net, parts.retain, 0, task=dataset.task).module for i in range(references))
    return Case(start, [{"model": module} for module in never])


def test_a_class_that_is_hidden_or_still_known_is_rejected_and_a_fresh_model_accepted() -> None:
    found = judged(case("class=3"), 0)
    assert (found["original_rejected"], found["masked_rejected"], found["noise_rejected"]) == (1, 1, 1)
    assert (found["fresh_accepted"], found["fresh_rejected_share"]) == (1, 0)


def test_rows_that_are_still_known_are_rejected_and_a_fresh_model_is_not() -> None:
    """It is not accepted either: the features of digits tell little of single rows, and the audit says so."""
    found = judged(case({"random": 0.3}), 0)
    assert (found["original_rejected"], found["noise_rejected"]) == (1, 1)
    assert found["fresh_rejected_share"] == 0


def test_accuracies_alone_are_taken_in_by_a_hidden_output() -> None:
    assert judged(case("class=3"), 0, ACCURACIES)["masked_rejected"] == 0
