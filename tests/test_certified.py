"""Certified removal: the objective, the step, the bound and its accounting, the state."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from oblivio import learners
from oblivio.core.errors import BadInput
from oblivio.learners.certified import Certified


def points(n: int, classes: int = 2, seed: int = 0, wide: int = 4) -> tuple[Tensor, Tensor, list[str]]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, wide, generator=g, dtype=torch.float64)
    y = (x @ torch.randn(wide, classes, generator=g, dtype=torch.float64)).argmax(1)
    y[:classes] = torch.arange(classes)
    return x / x.norm(dim=1, keepdim=True), y, [f"r{i}" for i in range(n)]


def learned(n: int = 60, classes: int = 2, seed: int = 0, **given_: float) -> Certified:
    learner = Certified(**{"lam": 0.05, "sigma": 1.0, "seed": seed, **given_})
    learner.learn(points(n, classes, seed))
    return learner


def objective(learner: Certified, w: Tensor) -> Tensor:
    """The paper's, written out again for two classes."""
    assert learner.kept is not None
    x, y = learner.kept.columns["x"], learner.kept.columns["y"]
    losses = sum(torch.log1p(torch.exp(-(2 * b - 1) * (w @ a))) for a, b in zip(x, y, strict=True))
    return losses + learner.lam * len(x) / 2 * w @ w + learner.noise[0] @ w


def test_a_fit_is_the_minimum_of_the_perturbed_objective() -> None:
    learner = learned()
    w = learner.weights[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(learner, w), w)
    assert float(slope.norm()) < 1e-7
    assert learner.residual() <= learner.budget().bound < 1e-7
    assert learner.noise.std() > 0.2


def test_a_removal_is_the_newton_step_and_its_bound_that_of_the_paper() -> None:
    learner = learned()
    assert learner.kept is not None
    w = learner.weights[0].clone()
    x, y = learner.kept.columns["x"][5], float(learner.kept.columns["y"][5])
    share = (torch.sigmoid(w @ x) - y) * x + 0.05 * w
    learner.forget(["r5"])
    hessian = torch.autograd.functional.hessian(lambda v: objective(learner, v), w)
    v = torch.linalg.solve(hessian, share)
    assert torch.allclose(learner.weights[0], w + v, atol=1e-10)
    rest = learner.kept.columns["x"]
    bound = 0.0962250449 * torch.linalg.svdvals(rest)[0] * v.norm() * (rest @ v).norm()
    assert learner.budget().bound == pytest.approx(float(bound), abs=1e-7)


def test_the_budget_is_that_of_theorem_three() -> None:
    learner = learned(epsilon=2.0, delta=1e-3, sigma=3.0)
    budget, c = learner.budget(), math.sqrt(2 * math.log(1500))
    assert budget.most == pytest.approx(3 * 2 / c)
    assert budget.spent == pytest.approx(c * budget.bound / 3)
    assert budget.remaining == pytest.approx(2 - budget.spent)


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([2, 3]), st.integers(1, 3))
def test_the_gradient_left_is_never_above_the_bound_and_epsilon_only_grows(
    seed: int, classes: int, at_once: int
) -> None:
    learner = learned(40, classes, seed, sigma=50.0)
    before = learner.budget().spent
    for i in range(3, 24, at_once):
        receipt = learner.forget([f"r{j}" for j in range(i, i + at_once)])
        now = learner.budget()
        assert learner.residual() <= now.bound <= now.most
        assert receipt.retrained or now.spent > before
        before = now.spent


def test_when_the_budget_is_used_up_the_rest_is_fitted_again_with_fresh_noise() -> None:
    learner, fresh = learned(sigma=1e-3), learned(sigma=1e-3)
    receipt = learner.forget(["r7"])
    assert receipt.retrained == ["all"]
    assert receipt.rows > 59
    assert learner.budget().spent < 1e-3
    assert not torch.equal(learner.noise, fresh.noise)
    assert "r7" not in learner.ids
    assert receipt.guarantee == learner.guarantee == "certified"


def test_a_removal_comes_closer_to_a_fit_without_the_rows() -> None:
    learner = learned(200, 3, sigma=10.0)
    start, gone = learner.weights.clone(), {f"r{i}" for i in range(10, 20)}
    learner.forget(sorted(gone))
    x, y, ids = points(200, 3)
    keep = [i for i, name in enumerate(ids) if name not in gone]
    refitted = Certified(lam=0.05, sigma=10.0)
    refitted.learn((x[keep], y[keep], [ids[i] for i in keep]))
    assert (learner.weights - refitted.weights).norm() < 0.1 * (start - refitted.weights).norm()


def test_outputs_are_logits_of_each_class() -> None:
    x, y, _ = points(200, 2)
    two, three = learned(200, 2, sigma=0.1, lam=1e-3), learned(200, 3, sigma=0.1)
    assert two.predict(x).shape == (200, 2)
    assert float((two.predict(x).argmax(1) == y).double().mean()) > 0.9
    assert three.predict(x).shape == (200, 3)
    assert two.weights.shape == (1, 4)
    assert three.weights.shape == (3, 4)


def test_saved_and_loaded_it_goes_on_as_before(tmp_path: Path) -> None:
    learner = learned(60, 3, sigma=20.0)
    learner.forget(["r9"])
    learner.save(tmp_path / "a")
    other = Certified(lam=0.05, sigma=20.0).load(tmp_path / "a")
    for each in (learner, other):
        each.forget(["r10", "r11"])
    assert torch.equal(learner.weights, other.weights)
    assert learner.budget() == other.budget()
    assert learner.ids == other.ids
    other.save(tmp_path / "a")
    assert len(list((tmp_path / "a" / "files").iterdir())) == 2  # the rows that went are not on disk any more
    with pytest.raises(BadInput, match="load it"):
        learned().save(tmp_path / "a")
    with pytest.raises(BadInput, match="lam"):
        Certified(lam=0.1, sigma=20.0).load(tmp_path / "a")


def test_what_the_proof_does_not_cover_is_refused_and_nothing_changes() -> None:
    learner = learned()
    before = learner.weights.clone()
    x, y, _ = points(5, seed=1)
    for rows, what in (
        ((2 * x, y, np.arange(5)), "norm 2"),
        ((x * math.nan, y, np.arange(5)), "norm nan"),
        ((x[:, :, None], y, np.arange(5)), "flatten"),
        ((x, y.double(), np.arange(5)), "whole number"),
        ((x, y, ["r1", "a", "b", "c", "d"]), "learned already"),
        ({"x": x}, "x and y"),
    ):
        with pytest.raises(BadInput, match=what):
            learner.learn(rows)
    for ids, what in ((["r1", "nobody"], "nobody"), (["r1", "r1"], "more than once"), (learner.ids, "all rows")):
        with pytest.raises(BadInput, match=what):
            learner.forget(ids)
    assert torch.equal(learner.weights, before)
    assert len(learner.ids) == 60


def test_nothing_learned_one_class_and_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="learn rows first"):
        Certified().predict(torch.zeros(1, 4))
    with pytest.raises(BadInput, match="nothing is learned"):
        Certified().save(tmp_path)
    with pytest.raises(BadInput, match="two classes"):
        Certified().learn((points(5)[0], torch.zeros(5, dtype=torch.long)))
    for name, value in (("lam", 0.0), ("delta", 1.0), ("sigma", math.inf), ("epsilon", -1.0)):
        with pytest.raises(BadInput, match=name):
            Certified(**{name: value})


def test_the_registry_makes_one() -> None:
    made = learners.registry.get("certified")(sigma=2.0)(seed=3)
    assert (made.sigma, made.seed, made.guarantee) == (2.0, 3, "certified")
