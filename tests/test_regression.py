"""Regression in the targets' own units, and parts of a model that are fitted to rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import oblivio as ob
from oblivio import artefact, data
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.data.columns import column
from oblivio.jobs.network import Network, network
from oblivio.jobs.recipe import Recipe, shipped
from oblivio.jobs.training import train
from oblivio.modules.fitted import moments
from oblivio.modules.targets import TargetUnits
from oblivio.networks import Architecture
from oblivio.sources import as_source
from oblivio.tasks.regression import Regression


def salaries(n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three columns and a target far from 0 with a large spread."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=g)
    return x, 50_000 + 9_000 * (x.sum(1) + 0.1 * torch.randn(n, generator=g))


def linear() -> nn.Linear:
    return nn.Linear(3, 1)


# --- statistics


def test_moments_of_parts_are_those_of_the_whole() -> None:
    x = 1e6 + torch.randn(3, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, std = moments(x.split([1, 500, 499], dim=1))
    torch.testing.assert_close(mean, x.mean(1).float())
    torch.testing.assert_close(std, x.std(1, correction=0).float())


def test_a_constant_has_deviation_one() -> None:
    assert moments([torch.full((1, 5), 0.1)] * 3)[1].tolist() == [1]


# --- the output module


def test_outputs_are_in_the_targets_units() -> None:
    units = TargetUnits(2)
    y = torch.tensor([[1.0, 10], [3, 10]])
    units.refit(as_source((torch.zeros(2, 1), y)))
    assert units(torch.tensor([[-1.0, 0], [1, 0]])).tolist() == y.tolist()
    assert not list(units.parameters())


def test_targets_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadInput, match="target 0 holds NaN"):
        TargetUnits(1).refit(as_source((torch.zeros(2, 1), torch.tensor([1.0, torch.nan]))))


def test_a_regression_is_built_saved_and_read_with_its_units(tmp_path: Path) -> None:
    diabetes = data.load("diabetes")
    net = network("mlp", {"hidden": [8]}, diabetes)
    module = net.build(diabetes.train, 0)
    y = torch.from_numpy(column(diabetes.train, "y"))
    torch.testing.assert_close(module.get_buffer("units.mean"), y.mean()[None])
    artefact.save(tmp_path, module, task="regression", architecture=net.architecture)
    again = artefact.read(tmp_path)
    assert again.architecture == net.architecture
    x = diabetes.test.batch(torch.arange(5))["x"]
    assert torch.equal(again.module(x), module.eval()(x))


def test_a_reference_has_the_units_of_its_own_rows() -> None:
    diabetes = data.load("diabetes")
    high = column(diabetes.train, "y") > 150
    net = network("mlp", {"hidden": [8]}, diabetes)
    reference = net.build(diabetes.train.take(~high), 1)
    assert float(reference.get_buffer("units.mean")) == pytest.approx(column(diabetes.train, "y")[~high].mean())


def test_only_a_regression_has_units() -> None:
    assert not network("mlp", {}, data.load("digits")).architecture.units
    assert isinstance(Architecture("mlp", (3,), 2).build().get_submodule("head"), nn.Linear)


def test_the_head_is_found_before_the_units() -> None:
    model = Architecture("mlp", (3,), 1, {"hidden": [4]}, units=True).build()
    assert ob.Problem(model, forget=salaries()).features == "model.net.head"


# --- the task's scale


def test_the_loss_has_a_scale_and_the_figure_has_none() -> None:
    out, batch = (
        torch.tensor([[3.0], [5.0]]),
        as_source((torch.zeros(2, 1), torch.tensor([1.0, 5.0]))).batch(torch.arange(2)),
    )
    task = Regression(scale=2)
    assert task.each(out, batch).tolist() == [1, 0]
    assert task.distance(out, torch.tensor([[7.0], [5.0]]), batch).tolist() == [4, 0]
    assert task.score(out, batch).tolist() == [-0.5, 0]
    assert task.quality(out, batch).tolist() == [4, 0]


def test_every_target_has_its_own_scale() -> None:
    y = torch.tensor([[0.0, 0, 5], [2, 200, 5]])
    assert Regression.of(as_source((torch.zeros(2, 1), y))).scale.tolist() == [1, 100, 1]


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_a_scale_is_above_zero(scale: float) -> None:
    with pytest.raises(BadInput, match="must be above 0"):
        Regression(scale)


@pytest.mark.parametrize("name", [None, "regression"])
def test_the_scale_is_that_of_the_retained_targets(name: str | None) -> None:
    rows, gone = salaries(), (torch.zeros(2, 3), torch.tensor([0.0, 1e9]))
    task = ob.Problem(linear(), task=name, forget=gone, retain=rows).task
    assert isinstance(task, Regression)
    torch.testing.assert_close(task.scale, rows[1].std(correction=0)[None])


def test_without_retained_rows_it_is_that_of_others() -> None:
    x, y = salaries()
    for name in ("train", "forget"):
        task = Problem(linear(), **{"test": (x, 3 * y), name: (x, y)}).task
        assert isinstance(task, Regression)
        torch.testing.assert_close(task.scale, y.std(correction=0)[None])


def test_targets_that_are_not_finite_are_left_to_the_check_of_the_rows() -> None:
    x, y = salaries()
    y[3] = torch.inf
    problem = ob.Problem(linear(), forget=(x[:2], y[:2]), retain=(x[2:], y[2:]))
    with pytest.raises(BadInput, match="retain: 1 rows with NaN or infinite targets, ids 1"):
        ob.forget(problem, "finetune")


# --- training and forgetting, in the targets' own units


@pytest.fixture(scope="module")
def diabetes() -> tuple[Problem, float]:
    """An original on diabetes, and the variance of the targets."""
    found = data.load("diabetes")
    original = train(shipped("mlp"), network("mlp", {"hidden": [64]}, found), found.train, 0, task="regression").module
    gone, rest = data.split(found.train, "random=0.1", seed=0)
    held, kept = rest.take(range(30)), rest.take(range(30, len(rest)))
    problem = Problem(original, task="regression", forget=gone, retain=kept, valid=held, test=found.test)
    return problem, float(column(found.train, "y").var())


def test_the_original_learns(diabetes: tuple[Problem, float]) -> None:
    problem, variance = diabetes
    assert problem.score("test") < 0.7 * variance


@pytest.mark.parametrize("method", ["finetune", "grad_ascent", "grad_diff", "npo", "relabel", "salun", "l1_sparse"])
def test_shipped_defaults_keep_what_the_model_can(diabetes: tuple[Problem, float], method: str) -> None:
    problem, variance = diabetes
    assert ob.forget(problem, method).problem.score("test") < 0.8 * variance


def test_a_recipe_of_large_targets_learns() -> None:
    rows = as_source(salaries())
    net = Network(Architecture("mlp", (3,), 1, {"hidden": [16]}, units=True))
    made = train(Recipe(optimiser="adam", lr=1e-2, epochs=30, batch=16), net, rows, 0, task="regression").module
    problem = Problem(made, train=rows)
    assert problem.score("train") < 0.1 * float(salaries()[1].var())


# --- what is fitted to rows is fitted to the retained ones by `retrain`


def extreme(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets, and which rows are to be forgotten: those far away."""
    x, gone = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(40) < 4
    x[gone] *= 1e4
    return x, 100 + 10 * torch.arange(40.0) + 1e6 * gone, gone


SPECS = [
    ((3,), {"sizes": [0, 0, 0], "gaps": [1]}),
    ((1, 4, 4), "channels"),
]


@pytest.mark.parametrize(("shape", "spec"), SPECS)
def test_retrain_knows_nothing_of_forgotten_rows(shape: tuple[int, ...], spec: object) -> None:
    x, y, gone = extreme(shape)
    net = Network(Architecture("mlp", shape, 1, {"hidden": [4]}, spec, units=True))  # type: ignore[arg-type]
    original = net.build(as_source((x, y)), 0)
    problem = ob.Problem(original, forget=(x[gone], y[gone]), retain=(x[~gone], y[~gone]))
    found = dict(ob.forget(problem, "retrain", epochs=1).model.named_buffers())
    alone, before = (dict(m.named_buffers()) for m in (net.build(as_source((x[~gone], y[~gone])), 0), original))
    assert all(torch.equal(found[name], alone[name]) for name in alone)
    assert not torch.equal(before["prepare.mean"], found["prepare.mean"])
    assert not torch.equal(before["units.std"], found["units.std"])


def test_images_read_lazily_are_fitted_as_tensors_are() -> None:
    x, y, _ = extreme((1, 4, 4))
    listed = [(x[i], y[i]) for i in range(len(x))]
    net = Network(Architecture("mlp", (1, 4, 4), 1, preprocess="channels", units=True))
    one, other = (net.build(as_source(rows), 0).state_dict() for rows in (listed, (x, y)))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_users_own_module_is_refitted_too() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 1)
            self.seen: list[int] = []

        def refit(self, source: object) -> None:
            self.seen.append(len(source))  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    problem = ob.Problem(Centred(), forget=salaries(5), retain=salaries(30, 1))
    assert ob.forget(problem, "retrain", epochs=1).model.seen == [30]


# --- inputs that do not fit


@pytest.mark.parametrize("y", [torch.zeros(2, dtype=torch.long), torch.tensor([0.0, 1.0])])
def test_inputs_that_do_not_fit_the_model_are_named(y: Tensor) -> None:
    rows = (torch.zeros(2, 7), y)
    with pytest.raises(BadInput) as caught:
        ob.forget(ob.Problem(linear(), forget=rows, retain=(rows[0], y, np.array([5, 6]))), "finetune")
    words = str(caught.value)
    assert words.startswith("the model cannot take rows of x with the shape (7,): ")
    assert "mat1" in words
    assert "\n" not in words
