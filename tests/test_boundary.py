"""The options of boundary shrink: weights by margin, and the change in curvature."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from oblivio import methods
from oblivio.contracts import TABLE
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.methods.unlearning.boundary.boundary_unlearning import bend, curvature, neighbour, slope, weighed


def smooth() -> Problem:
    """A smooth network of doubles, so that finite differences are exact enough."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    rows = {"x": torch.rand(6, 3, dtype=torch.float64), "y": torch.tensor([0, 1, 2, 0, 1, 2])}
    problem = Problem(model, task="classification", forget=rows)
    problem.source("forget").read = _doubles(rows)  # type: ignore[method-assign]
    return problem


def _doubles(rows: dict[str, Tensor]):  # type: ignore[no-untyped-def]
    def read(name: str, places: Tensor, into: dict[str, Tensor]) -> None:  # sources give float32
        into[name] = rows[name][places]

    return read


def losses(problem: Problem, y: Tensor):  # type: ignore[no-untyped-def]
    return lambda x: nn.functional.cross_entropy(problem.model(x), y, reduction="none")


def test_weights_by_margin_are_those_of_the_two_largest_probabilities() -> None:
    out = torch.tensor([[0.0, 0.0, -50.0], [math.log(3), 0.0, -50.0]])
    even, apart = 3 / (1 + math.exp(2.5)), 3 / (1 + math.exp(-5 * (0.25 - 0.75 - 0.5)))
    assert weighed(out).tolist() == pytest.approx([even, apart])


def test_a_bend_is_the_change_of_slope_along_a_step_of_its_length() -> None:
    matrix = torch.tensor([[2.0, 0.0], [0.0, 4.0]])

    def quadratic(x: Tensor) -> Tensor:
        return 0.5 * ((x @ matrix) * x).sum(1)

    x = torch.tensor([[1.0, 1.0], [3.0, -2.0]])
    each = 0.9 / math.sqrt(2)  # of z along each axis
    expected = math.hypot(2 * each, 4 * each)  # a quadratic changes its slope by H z wherever one stands
    assert bend(quadratic, x).tolist() == pytest.approx([expected, expected])
    assert torch.allclose(slope(quadratic, x), x @ matrix)


def test_the_gradient_of_the_change_in_curvature_is_that_of_finite_differences() -> None:
    problem = smooth()
    loss = curvature("forget")
    loss.prepare(problem)
    with torch.no_grad():
        for w in problem.model.parameters():
            w += 0.1 * torch.randn(w.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(w)))
    found = problem.gradient(loss)
    weights = problem.weights("model.*")

    def value() -> float:
        with problem.evaluating():
            return float(loss(Step(problem, "test", dict.fromkeys(weights), None, train=False)).detach())

    assert value() > 0.01
    for name, weight in weights.items():
        for place in range(min(weight.numel(), 4)):
            flat, eps = weight.detach().view(-1), 1e-6
            flat[place] += eps
            more = value()
            flat[place] -= 2 * eps
            less = value()
            flat[place] += eps
            assert float(found[name].view(-1)[place]) == pytest.approx((more - less) / (2 * eps), abs=1e-6)


def test_the_start_has_changed_nothing() -> None:
    problem = smooth()
    loss = curvature("forget")
    loss.prepare(problem)
    with problem.evaluating():
        step = Step(problem, "test", dict.fromkeys(problem.weights("model.*")), None, train=False)
        assert float(loss(step).detach()) == pytest.approx(0, abs=1e-12)
    batch = problem.source("forget").batch(torch.arange(6))
    assert torch.allclose(loss.state["start"], bend(losses(problem, batch["y"]), batch["x"]))


def test_both_options_run_and_change_the_outcome() -> None:
    start = TABLE["digits"].problem()
    plain, *others = (
        Run(methods.boundary_unlearning(epochs=5, bound=0.3, **options), start.copy()).go().model.state_dict()
        for options in ({}, {"margins": True}, {"curve": 0.7})
    )
    for other in others:
        assert any(not torch.equal(plain[n], other[n]) for n in plain)
    term = neighbour("forget", 0.3, margins=True)
    term.prepare(start)
    assert 0 < float(term.state["weight"].min()) <= float(term.state["weight"].max()) <= 3 / (1 + math.exp(2.5)) + 1e-6
    assert 0 <= term.state["hits"] <= 1
