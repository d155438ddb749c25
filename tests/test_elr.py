"""Early-learning regularisation: its value, its memory by row, and where it may stand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import flat, mlp, rows, step
from torch import nn

from oblivio import methods, terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.plan import Plan
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.sources import as_source
from oblivio.terms.elr import EDGE, elr, likely


def fixed(*probabilities: list[float]) -> Problem:
    """A model that gives each row these probabilities."""
    model = nn.Linear(len(probabilities), len(probabilities[0]), bias=False)
    model.weight.data = torch.tensor(probabilities).log().T.contiguous()
    labels = torch.zeros(len(probabilities), dtype=torch.long)
    return Problem(model, train=(torch.eye(len(probabilities)), labels))


def visit(term: elr, of: Problem) -> None:
    """One step's forward and update of the memory."""
    now = step(of)
    term.grad(now)
    with torch.no_grad():
        term.after(now)


def test_the_value_is_the_card_s_formula_at_first_and_second_visit() -> None:
    of, term = fixed([0.8, 0.2], [0.4, 0.6]), elr("train", beta=0.7)
    term.prepare(of)
    squares = 0.8**2 + 0.2**2, 0.4**2 + 0.6**2
    first = sum(math.log(1 - 0.3 * s) for s in squares) / 2
    assert term(step(of)).item() == pytest.approx(first, rel=1e-5)
    visit(term, of)
    assert term.state["table"].tolist() == [pytest.approx([0.24, 0.06]), pytest.approx([0.12, 0.18])]
    second = sum(math.log(1 - (0.3 + 0.7 * 0.3) * s) for s in squares) / 2
    assert term(step(of)).item() == pytest.approx(second, rel=1e-5)


def test_the_gradient_goes_through_the_prediction_and_not_the_memory() -> None:
    of, term = fixed([0.7, 0.3]), elr("train", beta=0.5)
    term.prepare(of)
    got = term.grad(step(of))["model.weight"].flatten()
    p, t = torch.tensor([0.7, 0.3]), torch.tensor([0.35, 0.15])
    inner = float(t @ p)
    expected = -(p * (t - inner)) / (1 - inner)  # softmax's Jacobian on -t / (1 - <t, p>)
    assert got.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def trained(plan: Descent, of: Problem) -> elr:
    """The term of a plan after its run, which works on a copy."""
    run = Run(plan, of)
    run.go()
    return next(part for part in run.parts.values() if isinstance(part, elr))


def test_the_memory_is_by_place_in_the_source_not_in_the_batch() -> None:
    of = Problem(mlp(), train=rows(10, 6))
    term = trained(Descent(elr("train"), opt=sgd(0.0), steps=1, batch=4), of)
    visited = (term.state["table"].sum(1) > 0).nonzero().flatten()
    assert len(visited) == 4
    table = 0.3 * likely(of.predict("train"))
    assert torch.allclose(term.state["table"][visited], table[visited], atol=1e-4)


@given(st.lists(st.floats(-80, 80), min_size=2, max_size=6), st.integers(1, 30))
def test_value_and_gradient_are_finite_however_sure_the_model_is(logits: list[float], visits: int) -> None:
    model = nn.Linear(1, len(logits), bias=False)
    model.weight.data = torch.tensor(logits)[:, None]
    of = Problem(model, train=(torch.ones(1, 1), torch.zeros(1, dtype=torch.long)))
    term = elr("train", beta=0.7)
    term.prepare(of)
    for _ in range(visits):
        visit(term, of)
    assert math.log(EDGE / 2) <= term(step(of)).item() <= 0
    assert bool(torch.isfinite(flat(term.grad(step(of)))).all())
    assert float(term.state["table"].sum()) <= 1 + 1e-5


@pytest.mark.parametrize("ids", [np.arange(100, 110), np.array([f"row {i}" for i in range(10)])])
def test_a_deletion_request_empties_the_rows_it_names(ids: np.ndarray) -> None:
    source = as_source((*rows(10, 6), ids))
    term = trained(Descent(elr("train"), opt=sgd(0.01), epochs=1, batch=5), Problem(mlp(), train=source))
    before = term.state["table"].clone()
    problem = Problem(mlp(), train=source)
    assert term.forget(source.take([2, 7]), problem) == "targets of 2 rows emptied"
    table = term.state["table"]
    assert table[[2, 7]].abs().sum() == 0
    kept = [0, 1, 3, 4, 5, 6, 8, 9]
    assert torch.equal(table[kept], before[kept])
    assert bool((table[kept].sum(1) > 0).all())


def test_a_request_before_the_first_step_is_nothing() -> None:
    term = elr("train")
    assert term.forget(as_source(rows(3, 6)), Problem(mlp(), train=as_source(rows(3, 6)))) == ""
    assert term.state == {}


def test_a_chunked_step_keeps_the_same_memory() -> None:
    assert torch.allclose(_table(None), _table(3), atol=1e-6)


def _table(chunk: int | None) -> torch.Tensor:
    torch.manual_seed(0)
    loss = terms.fit("train") + 3.0 * terms.elr("train")
    plan = Descent(loss, opt=sgd(0.05), epochs=2, batch=5, chunk=chunk)
    return trained(plan, Problem(mlp(), train=rows(10, 6))).state["table"]


def test_the_piece_guards_each_source_of_kept_rows_once() -> None:
    plan = methods.elr(lam=2.0, beta=0.9)(methods.relabel())
    assert repr(plan).count("2 * elr(on='retain', beta=0.9)") == 1
    assert "elr(on='forget'" not in repr(plan)


def test_the_piece_refuses_a_plan_that_trains_on_no_kept_rows() -> None:
    with pytest.raises(BadInput, match="reads none of retain, train"):
        methods.elr()(methods.grad_ascent())
    with pytest.raises(BadInput, match="direct edit"):
        methods.elr()(Plan([]))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="beta = 1"):
        methods.elr(beta=1.0)
