"""Teachers: fresh networks beside the model, what it learns from them, and SCRUB's turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oblivio import edits, methods, terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.part import walk
from oblivio.core.plan import Cycle
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.surgery import replay
from oblivio.methods.unlearning.distillation.scrub import first
from oblivio.modules.fresh import add_fresh, drop_net, redraw


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))


def problem(**facts: Any) -> Problem:
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(12, 3, generator=g), torch.arange(12) % 4
    return Problem(model(), forget=(x[:4], y[:4]), retain=(x[4:], y[4:]), **facts)


def values(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_a_fresh_net_has_the_models_form_and_other_weights() -> None:
    given = problem()
    before = values(given.model)
    Run(edits.fresh("teacher"), given).go()
    mine, theirs = dict(given.model.named_parameters()), dict(given.nets["teacher"].named_parameters())
    assert {n: w.shape for n, w in mine.items()} == {n: w.shape for n, w in theirs.items()}
    assert not torch.equal(theirs["0.weight"], mine["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in given.model.state_dict().items())
    assert torch.equal(given.nets["teacher"].get_buffer("1.running_var"), torch.ones(5))


@given(st.integers(0, 1 << 30), st.integers(0, 1 << 30))
def test_it_is_a_function_of_the_seed_and_leaves_the_global_generator(seed: int, other: int) -> None:
    def drawn(seed: int) -> torch.Tensor:
        nets: dict[str, nn.Module] = {"model": nn.Linear(2, 2)}
        add_fresh(nets, name="teacher", seed=seed)
        weight = nets["teacher"].weight
        assert isinstance(weight, torch.Tensor)
        return weight.detach()

    torch.manual_seed(other)
    state = torch.get_rng_state()
    nn.Linear(2, 2)
    expected = torch.get_rng_state()
    torch.set_rng_state(state)
    once = drawn(seed)
    assert torch.equal(torch.get_rng_state(), expected)
    assert torch.equal(once, drawn(seed))
    assert torch.equal(once, drawn(other)) == (seed == other)


def test_the_journal_brings_it_back_and_takes_it_out() -> None:
    given = problem()
    Run(edits.fresh("teacher"), given).go()
    again: dict[str, nn.Module] = {"model": model()}
    replay(again, given.journal)
    assert torch.equal(again["teacher"].get_parameter("0.weight"), given.nets["teacher"].get_parameter("0.weight"))
    Run(edits.drop("teacher"), given).go()
    assert list(given.nets) == ["model"]


@pytest.mark.parametrize("name", ["model", "teacher"])
def test_what_cannot_be_taken_out_is_named(name: str) -> None:
    with pytest.raises(BadInput, match=f"no net '{name}' beside the model"):
        drop_net({"model": model()}, name=name)


def test_a_second_net_of_the_same_name_is_refused() -> None:
    with pytest.raises(BadInput, match="a net 'teacher' already"):
        add_fresh({"model": model(), "teacher": model()}, name="teacher", seed=0)


def test_weights_that_cannot_be_drawn_anew_are_named() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    with pytest.raises(BadInput, match=r"the module 1 \(Own\) has weights and no reset_parameters"):
        redraw(nn.Sequential(nn.Linear(2, 2), Own()))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_imitate_is_the_divergence_from_the_teacher(temperature: float) -> None:
    given = problem()
    Run(edits.fresh("teacher"), given).go()
    x = next(given.source("forget").batches(4))["x"]
    given.nets.eval()
    p = (given.nets["teacher"](x) / temperature).softmax(1)
    q = (given.model(x) / temperature).softmax(1)
    by_hand = temperature**2 * (p * (p / q).log()).sum(1).mean()
    slope = torch.autograd.grad(by_hand, given.model.get_parameter("3.bias"))[0]
    got = given.gradient(terms.imitate("forget", temperature=temperature))
    assert torch.allclose(got["model.3.bias"], slope, atol=1e-6)


def test_the_teacher_does_not_move() -> None:
    given = problem()
    Run(edits.fresh("teacher"), given).go()
    before = values(given.nets["teacher"])
    Run(Descent(terms.imitate("forget"), opt=sgd(0.1), epochs=3), given).go()
    assert all(torch.equal(value, before[name]) for name, value in given.nets["teacher"].state_dict().items())


@pytest.mark.parametrize("name", ["bad_teacher", "stochastic_teacher"])
def test_the_teacher_is_gone_afterwards(name: str) -> None:
    given = problem()
    Run(methods.registry.get(name)(), given).go()
    assert list(given.nets) == ["model"]


def test_the_phases_of_the_stochastic_teacher_share_one_optimiser() -> None:
    one, two = (part for _, part in walk(methods.stochastic_teacher()) if isinstance(part, Descent))
    assert one.opt is two.opt


def test_scrub_steps_away_in_the_first_rounds_alone() -> None:
    given, seen = problem(), []
    plan = methods.scrub(msteps=2, epochs=4, batch=8, forget_batch=4)
    Run(plan, given, watch=[lambda run, stage, step: seen.append("away" if "0" in stage.place[-2:] else "back")]).go()
    assert seen == ["away", "back", "away", "back", "back", "back"]


def test_scrub_goes_up_in_the_divergence_on_forgotten_rows() -> None:
    """The first stage's gradient against one by hand, away from the start, where it is not zero."""
    given = problem()
    given.keep("start")
    start = given.predict("forget")
    with torch.no_grad():
        given.model.get_parameter("3.bias").add_(torch.tensor([0.5, -0.5, 0.2, 0.0]))
    given.moved = True
    cycle = methods.scrub(temperature=2.0)
    assert isinstance(cycle, Cycle)
    away = cycle.stages[0]
    assert isinstance(away, Descent)
    given.nets.eval()
    x = next(given.source("forget").batches(4))["x"]
    kl = F.kl_div(F.log_softmax(given.model(x) / 2, 1), F.softmax(start / 2, 1), reduction="batchmean")
    slope = torch.autograd.grad(-4 * kl, given.model.get_parameter("3.bias"))[0]
    assert torch.allclose(given.gradient(away.loss)["model.3.bias"], slope, atol=1e-6)


@given(st.integers(1, 20), st.integers(0, 40))
def test_first_is_one_epoch_for_so_many_visits(visits: int, visit: int) -> None:
    assert first(visits)(visit) == (1 if visit < visits else 0)
