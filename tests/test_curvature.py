"""Methods that use curvature: their formulas against values computed by hand or exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from oblivio import methods
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.importance import fisher
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.methods.unlearning.curvature.iau import slope
from oblivio.methods.unlearning.curvature.influence import conjugate, curved
from oblivio.methods.unlearning.curvature.lcodec import blanket, dependence, solve
from oblivio.modules.units import Unit, activations, gathered, incoming, shift
from oblivio.records import make
from oblivio.records.late_checkpoints import late
from oblivio.sources import as_source
from oblivio.tasks.regression import Regression
from oblivio.terms import fit


def rows(n: int, seed: int = 0, wide: int = 3) -> Tensor:
    return torch.randn(n, wide, generator=torch.Generator().manual_seed(seed))


def linear(kind: str) -> Problem:
    """A linear model without a bias, at any weights; ten rows go, forty stay."""
    x = rows(50)
    y = (x @ torch.tensor([1.0, -2.0, 0.5]))[:, None] + 0.1 * rows(50, 1, 1)
    model = nn.Linear(3, 1, bias=False)
    target = y if kind == "regression" else (y > 0).long()
    return Problem(model, task=kind, forget=(x[:10], target[:10]), retain=(x[10:], target[10:], np.arange(10, 50)))


def vector(problem: Problem, name: str = "model.weight") -> Tensor:
    return problem.weights()[name].detach().flatten().double()


def data(problem: Problem, on: str) -> tuple[Tensor, Tensor]:
    batch = next(problem.source(on).batches(100))
    return batch["x"].double(), batch["y"].double().flatten()


# --- Fisher forgetting


def test_the_noise_of_fisher_forgetting_has_the_variance_it_says() -> None:
    model = nn.Linear(3, 2000, bias=False)
    x = torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0]])
    problem = Problem(model, task=Regression(), retain=(x, model(x).detach() + 1.0))
    start, importance = model.weight.detach().clone(), fisher(problem, "retain")["model.weight"]
    Run(methods.fisher_forgetting(alpha=0.01, most=1e6), problem).go()
    expected = 0.01 * (1 / (importance.mean(0) + 1e-8)).clamp(max=1e6).sqrt()
    assert float(expected[2]) == pytest.approx(10.0)  # no row has the third feature: the bound is reached
    assert torch.allclose((model.weight.detach() - start).var(0), expected, rtol=0.15)


# --- influence


def test_a_gauss_newton_product_of_a_logistic_model_is_that_of_its_hessian() -> None:
    problem = linear("binary")
    x, _ = data(problem, "retain")
    p = (x @ vector(problem)).sigmoid()
    hessian = (x * (p * (1 - p))[:, None]).T @ x / len(x)
    v = torch.tensor([0.3, -1.0, 2.0])
    product = curved(problem, "retain", {"model.weight": v[None]}, chunk=7)["model.weight"]
    assert torch.allclose(product.flatten().double(), hessian @ v.double(), atol=1e-6)


def test_conjugate_gradients_solve_what_elimination_solves() -> None:
    a = rows(20, 2, 6).double()
    matrix, right = a.T @ a / 20 + 0.1 * torch.eye(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    found = conjugate(lambda v: {"w": matrix @ v["w"]}, {"w": right}, 50)["w"]
    exact = torch.linalg.solve(matrix, right)
    assert float((found - exact).norm() / exact.norm()) < 5e-3
    one = conjugate(lambda v: {"w": matrix @ v["w"]}, {"w": right}, 1)["w"]
    assert torch.allclose(one, right * (right @ right) / (right @ matrix @ right))


def test_conjugate_gradients_of_nothing_are_nothing() -> None:
    assert not conjugate(lambda v: v, {"w": torch.zeros(3)}, 5)["w"].any()


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_the_influence_step_is_the_newton_step_with_the_exact_inverse(kind: str) -> None:
    problem, damping = linear(kind), 0.05
    w = vector(problem)
    x, _ = data(problem, "retain")
    gone, target = data(problem, "forget")
    if kind == "binary":
        p, q = (x @ w).sigmoid(), (gone @ w).sigmoid()
        hessian, slope = (x * (p * (1 - p))[:, None]).T @ x / 40, gone.T @ (q - target) / 40
    else:
        scale = hessian_scale()
        hessian, slope = scale * x.T @ x / 40, scale * gone.T @ (gone @ w - target) / 40
    Run(methods.influence(damping=damping, steps=20), problem).go()
    expected = w + torch.linalg.solve(hessian + damping * torch.eye(3, dtype=torch.float64), slope)
    assert torch.allclose(vector(problem), expected, rtol=5e-3, atol=1e-3)


def hessian_scale() -> float:
    """The second derivative of the regression's loss in the output: 2 for a squared error."""
    problem = linear("regression")
    batch = next(problem.source("retain").batches(1))
    out = torch.zeros(1, 1, requires_grad=True)
    (slope,) = torch.autograd.grad(problem.task.each(out, batch).sum(), out, create_graph=True)
    return float(torch.autograd.grad(slope.sum(), out)[0])


def test_removal_from_a_fitted_ridge_is_exact_refitting() -> None:
    problem = linear("regression")
    x, y = data(problem, "retain")
    gone, target = data(problem, "forget")
    every, all_y = torch.cat([gone, x]), torch.cat([target, y])
    with torch.no_grad():
        problem.weights()["model.weight"].copy_(torch.linalg.lstsq(every, all_y[:, None]).solution.T)
    Run(methods.influence(damping=1e-6), problem).go()
    refitted = torch.linalg.lstsq(x, y[:, None]).solution.flatten()
    assert torch.allclose(vector(problem), refitted, atol=2e-3)


def test_the_diagonal_solver_divides_by_the_fisher() -> None:
    problem = linear("binary")
    w, importance = vector(problem), fisher(problem, "retain")["model.weight"].double().flatten()
    gone, target = data(problem, "forget")
    slope = gone.T @ ((gone @ w).sigmoid() - target) / 40
    Run(methods.influence(solver="diagonal", damping=0.1, strength=2.0), problem).go()
    assert torch.allclose(vector(problem), w + 2 * slope / (importance + 0.1), atol=1e-5)


# --- influence approximation


def test_the_penalty_is_the_sum_of_the_norms_of_the_tensors_gradients_and_its_gradient_fits_differences() -> None:
    x, y = rows(8), torch.arange(8) % 2
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    problem = Problem(model, task="classification", train=(x, y))
    penalty = slope(fit("train"))

    def value() -> float:
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(model(x), y)
            return float(sum(g.norm() for g in torch.autograd.grad(loss, list(model.parameters()))))

    gradient = problem.gradient(penalty)["model.0.weight"]
    with torch.no_grad():
        weight = model[0].weight
        old = float(weight[1, 2])
        weight[1, 2] = old + 1e-2
        above = value()
        weight[1, 2] = old - 1e-2
        below = value()
        weight[1, 2] = old
    assert float(gradient[1, 2]) == pytest.approx((above - below) / 2e-2, abs=2e-3)


def test_iau_takes_one_step_along_the_difference_of_two_means() -> None:
    problem = linear("binary")
    w = vector(problem)
    (x, y), (gone, target) = data(problem, "retain"), data(problem, "forget")
    up, down = (a.T @ ((a @ w).sigmoid() - b) / len(b) for a, b in ((gone, target), (x, y)))
    for settings, expected in (
        ({"step": "sgd", "lr": 0.5}, w - 0.5 * (down - up)),
        ({"step": "sgd", "lr": 0.5, "correction": False}, w + 0.5 * up),
        ({"step": "adam", "lr": 0.5}, w - 0.5 * (down - up).sign()),
    ):
        copied = problem.copy()
        Run(methods.iau(**settings), copied).go()
        assert torch.allclose(vector(copied), expected, atol=1e-4)


# --- L-CODEC


def test_dependence_of_four_values_by_hand() -> None:
    """Ranks 1 2 3 4, so L = 4 3 2 1 and sum L (4 - L) = 10; z orders the rows 1 2 4 3."""
    y, z = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([[0.0], [1.0], [2.5], [2.1]])
    # neighbours in z: 1-2, 2-1, 3-4, 4-3; smaller ranks 1 1 3 3; 4 * 8 - (16 + 9 + 4 + 1) = 2
    assert float(dependence(y, z)) == pytest.approx(2 / 10)


def test_conditional_dependence_of_four_values_by_hand() -> None:
    y, x = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([[0.0], [3.0], [1.0], [4.2]])
    z = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    # in x: 1-3, 2-4, 3-1, 4-2, smaller ranks 1 2 1 2, R less these 0 0 2 2; in (x, z): 1-2, 2-1, 3-4, 4-3: 1 1 3 3
    assert float(dependence(y, z, x)) == pytest.approx(((1 + 1 + 3 + 3) - (1 + 2 + 1 + 2)) / 4)


def test_what_is_known_already_leaves_nothing_to_add() -> None:
    y = torch.arange(6.0)
    assert float(dependence(torch.zeros(6), y[:, None], y[:, None])) == -float("inf")


@given(st.integers(0, 10_000))
def test_dependence_is_never_above_one_and_does_not_change_with_the_scale_of_y(seed: int) -> None:
    z, y = rows(20, seed, 2), rows(20, seed + 1, 1).flatten()
    for given_ in (None, rows(20, seed + 2, 1)):
        assert float(dependence(y, z, given_).max()) <= 1 + 1e-9
        assert torch.equal(dependence(y, z, given_), dependence(y.exp(), z, given_))


def test_a_blanket_holds_the_causes_and_no_dead_or_idle_column() -> None:
    z = rows(300, 0, 5).double()
    z[:, 4] = 1.0
    assert set(blanket(z[:, 1] + z[:, 3].abs(), z)) == {1, 3}
    assert blanket(z[:, 0], z[:, [4]]) == []


def test_the_low_rank_solution_is_that_of_the_matrix() -> None:
    sides, g = rows(2, 0, 7).double(), rows(1, 1, 7)[0].double()
    signs = torch.tensor([1.5, -0.01], dtype=torch.float64)
    matrix = (sides.T * signs) @ sides + 0.3 * torch.eye(7, dtype=torch.float64)
    assert torch.allclose(solve(g, sides, signs, 0.3), torch.linalg.solve(matrix, g))
    assert torch.allclose(solve(g, g[None], torch.ones(1), 0.3), g / (0.3 + g @ g))
    assert torch.allclose(solve(g, sides, torch.zeros(2), 0.5), 2 * g)


def convolved() -> Problem:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2, bias=False))
    x, y = rows(12, 0, 16).view(12, 1, 4, 4), torch.arange(12) % 2
    return Problem(model, task="classification", train=(x, y), forget=(x[:2], y[:2]), retain=(x, y, np.arange(12) + 2))


def test_units_are_filters_and_outputs_and_their_weights_are_rows() -> None:
    problem = convolved()
    out, answers, units = activations(problem, problem.source("train").batch(torch.arange(5)))
    assert out.shape == (5, 2)
    assert units == [Unit("model.0", 0), Unit("model.0", 1), Unit("model.0", 2), Unit("model.3", 0), Unit("model.3", 1)]
    assert torch.equal(answers[:, 3:], out)
    x = problem.source("train").batch(torch.arange(5))["x"]
    assert torch.allclose(answers[:, 1], problem.model[0](x)[:, 1].mean((1, 2)).detach())  # type: ignore[index]
    chosen = incoming(problem, [Unit("model.0", 2), Unit("model.0", 1), Unit("model.3", 0)])
    assert {n: i.tolist() for n, i in chosen.items()} == {
        "model.0.weight": [1, 2], "model.0.bias": [1, 2], "model.3.weight": [0],
    }  # fmt: skip
    before = {n: w.detach().clone() for n, w in problem.weights().items()}
    by = torch.arange(2 * 9 + 2 + 12.0)
    with torch.no_grad():
        shift(problem, chosen, by)
    moved = {n: w.detach() - before[n] for n, w in problem.weights().items()}
    assert torch.allclose(gathered(moved, chosen), by, atol=1e-5)
    assert not moved["model.0.weight"][0].any()
    assert not moved["model.3.weight"][1].any()


def test_late_checkpoints_differ_by_a_step_and_the_weights_come_back() -> None:
    problem = convolved()
    before = {n: w.detach().clone() for n, w in problem.weights().items()}
    record = make("late_checkpoints", problem, lr=0.1)
    assert all(torch.equal(before[n], w) for n, w in problem.weights().items())
    assert record["rows"] == 12
    with torch.no_grad():  # the second step starts at the first point
        for n, slope_ in problem.gradient(fit("train")).items():
            problem.weights()[n].sub_(0.1 * slope_)
    for n, slope_ in problem.gradient(fit("train")).items():
        assert torch.allclose(record["weights"][n], -0.1 * slope_, atol=1e-6)


def test_training_leaves_late_checkpoints_without_being_changed() -> None:
    plain, kept = convolved(), convolved()
    for problem, how in ((plain, ()), (kept, late(apart=2))):
        Run(Descent(fit("train"), how=how, steps=6, batch=4), problem).go()
    assert all(torch.equal(w, kept.weights()[n]) for n, w in plain.weights().items())
    earlier = convolved()
    Run(Descent(fit("train"), steps=4, batch=4), earlier).go()
    record = kept.records["late_checkpoints"]
    for n, w in earlier.weights().items():
        assert torch.allclose(record["weights"][n], kept.weights()[n].detach() - w.detach(), atol=1e-6)


def test_a_removal_that_costs_too_much_is_taken_back() -> None:
    problem = convolved()
    before = {n: w.detach().clone() for n, w in problem.weights().items()}
    problem.sources["valid"] = problem._named("valid", as_source((problem.source("train").batch(torch.arange(12))["x"],
                                                                  problem.predict("train").argmax(1))))  # fmt: skip
    assert problem.score("valid") == 1.0
    Run(methods.lcodec(fallback=True, copies=20, lam=1e-4, epsilon=1e-6, skip=0.01), problem).go()
    assert all(torch.equal(before[n], w) for n, w in problem.weights().items())  # the noise alone is enormous


def test_lcodec_without_its_record_says_how_to_make_it() -> None:
    with pytest.raises(BadInput, match="late_checkpoints"):
        Run(methods.lcodec(), convolved()).go()
