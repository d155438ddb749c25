"""Deep regression unlearning: attention, the mixed loss by hand, its layers and targets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import step
from torch import Tensor, nn

from oblivio import methods
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.edits import fresh
from oblivio.methods.unlearning.regression.deep_regression_unlearning import BLIND, attention, blindspot, gaussian
from oblivio.sources import Joined
from oblivio.tasks.regression import Regression

EVERY = ("forget", "retain")


def regression(n: int = 5, m: int = 9, scale: float = 2.0) -> Problem:
    """A net of three linear layers, rows to forget and to keep, and a fresh net beside it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))
    of = Problem(model, task=Regression(scale), forget=pairs(n, 1), retain=pairs(m, 2))
    return Run(fresh(BLIND), of).go()


def pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=g), torch.randn(n, generator=g)


def ready(of: Problem, beta: float) -> tuple[blindspot, tuple[str, ...]]:
    term = blindspot(Joined(*EVERY), beta)
    of.source(term.on)
    term.prepare(of)
    return term, term.taps


def test_attention_of_an_image_is_the_mean_over_channels_normalised() -> None:
    a = torch.tensor([[[[3.0, 0.0]], [[1.0, 2.0]]]])  # one image, two channels, 1 x 2
    assert torch.allclose(attention(a), torch.tensor([[5.0, 2.0]]) / 29**0.5)
    assert torch.allclose(attention(torch.tensor([[1.0, 2.0]])), torch.tensor([[1.0, 4.0]]) / 17**0.5)
    assert attention(torch.ones(2, 7, 3)).shape == (2, 7)
    assert attention(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]


@given(st.floats(0.1, 10))
def test_attention_does_not_change_with_the_size_of_an_activation(by: float) -> None:
    a = torch.arange(1.0, 9.0).view(2, 4)
    assert torch.allclose(attention(by * a), attention(a), atol=1e-6)


def test_layers_are_the_inputs_of_all_but_the_first() -> None:
    assert ready(regression(), 1.0)[1] == ("model.2", "model.4", f"{BLIND}.2", f"{BLIND}.4")


@pytest.mark.parametrize("beta", [0.0, 50.0])
def test_the_loss_weighs_both_kinds_by_their_share(beta: float) -> None:
    of = regression()
    term, taps = ready(of, beta)
    value = term(step(of, taps=taps))
    f, b = of.nets["model"], of.nets[BLIND]
    gone, kept = (of.source(name).batch(torch.arange(len(of.source(name)))) for name in EVERY)
    apart = (f(gone["x"]) - b(gone["x"])).abs().mean() / 2
    layers = sum(
        (attention(f[:i](gone["x"])) - attention(b[:i](gone["x"]))).square().mean()  # type: ignore[index]
        for i in (2, 4)
    )
    own = (f(kept["x"])[:, 0] - kept["y"]).abs().mean() / 2
    assert value.item() == pytest.approx((5 / 14 * (apart + beta * layers) + 9 / 14 * own).item(), rel=1e-5)


def test_nothing_flows_into_the_blindspot() -> None:
    of = regression()
    term, taps = ready(of, 50.0)
    found = term.grad(step(of, "*", taps=taps))
    assert {name.partition(".")[0] for name in found} == {"model"}


def test_gaussian_targets_stand_for_the_forgotten_rows_alone_and_are_drawn_once() -> None:
    of = regression(400, 900)
    term = gaussian(Joined(*EVERY))
    of.source(term.on)
    target, again = (term.find(of)["target"] for _ in range(2))
    y = torch.cat([of.source(name).batch(torch.arange(len(of.source(name))))["y"] for name in EVERY])
    assert torch.equal(target, again)
    assert torch.equal(target[400:], y[400:])
    assert not torch.equal(target[:400], y[:400])
    assert target[:400].mean().item() == pytest.approx(y.mean().item(), abs=4 * y.std().item() / 20)
    assert target[:400].std().item() == pytest.approx(y.std().item(), rel=0.15)


def test_the_blindspot_is_trained_on_retained_rows_and_then_kept() -> None:
    of = regression()
    bare = Problem(of.nets["model"], task=Regression(), **{name: of.source(name) for name in EVERY})
    done = Run(methods.deep_regression_unlearning(epochs=1, blindspot_epochs=200, batch=9), bare).go()
    kept = done.source("retain").batch(torch.arange(9))
    errors = [(net(kept["x"])[:, 0] - kept["y"]).abs().mean() for net in (done.nets[BLIND], of.nets[BLIND])]
    assert errors[0] < 0.8 * errors[1]


def test_a_module_that_cannot_start_afresh_is_refused() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.scale).sum(1, keepdim=True)

    of = Problem(Own(), task=Regression(), forget=pairs(5, 1), retain=pairs(9, 2))
    with pytest.raises(BadInput, match="reset_parameters"):
        Run(methods.deep_regression_unlearning(), of).go()
