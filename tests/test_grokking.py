"""The quadratic network of the grokking study, its data, and the measure that tells its neurons apart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import step
from torch.nn import functional as F

from oblivio.claims.grokking import Quadratic, Setting, pairs, participation, periodicity, squared, trained, without
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem

SMALL = Setting(p=7, width=12, frac=0.6, xi=0.5, wd=0.0, steps=5)


def test_the_network_is_the_square_of_a_linear_map_of_one_hot_pairs() -> None:
    model, x = Quadratic(5, 3, seed=0), torch.tensor([[1, 4], [0, 0]])
    hot = torch.cat([F.one_hot(x[:, 0], 5), F.one_hot(x[:, 1], 5)], 1).float()
    expected = (hot @ torch.cat([model.left, model.right])).square() @ model.out.T
    assert torch.allclose(model(x), expected)


def test_weights_at_the_start_have_the_stated_spread() -> None:
    values = torch.cat([w.detach().flatten() for w in Quadratic(59, 400, seed=0).parameters()])
    assert float(values.std()) == pytest.approx(0.5 / 800 ** (1 / 3), rel=0.02)


@given(st.integers(3, 40), st.floats(0.2, 0.9), st.floats(0.3, 1.0), st.integers(0, 5))
def test_pairs_are_split_and_only_wrong_labels_are_wrong(p: int, frac: float, xi: float, seed: int) -> None:
    setting = Setting(p=p, frac=frac, xi=xi)
    try:
        parts = pairs(setting, seed)
    except BadInput:
        return
    both = torch.cat([parts["train"]["x"], parts["test"]["x"]])
    assert len(both.unique(dim=0)) == p * p == len(both)
    assert torch.equal(parts["test"]["y"], parts["test"]["x"].sum(1) % p)
    assert torch.equal(parts["wrong"]["x"], parts["true"]["x"])
    assert torch.equal(parts["true"]["y"], parts["true"]["x"].sum(1) % p)
    assert bool((parts["wrong"]["y"] != parts["true"]["y"]).all())
    off = (parts["train"]["y"] != parts["train"]["x"].sum(1) % p).sum()
    assert len(parts["wrong"]["y"]) == int(off) <= round(xi * round(frac * p * p))


def test_labels_that_are_all_right_are_refused() -> None:
    with pytest.raises(BadInput, match="choose a larger share"):
        pairs(Setting(xi=0.0), 0)


def test_the_participation_ratio_is_one_for_a_wave_and_small_for_noise() -> None:
    at = torch.arange(59) * 2 * math.pi / 59
    waves = torch.stack([torch.cos(3 * at), torch.sin(7 * at + 1)], 1)
    assert participation(waves).tolist() == pytest.approx([1, 1])
    two = torch.cos(3 * at) + torch.cos(5 * at)
    assert participation(two[:, None]).item() == pytest.approx(0.5)
    noise = torch.randn(59, 500, generator=torch.Generator().manual_seed(0))
    assert float(participation(noise).mean()) == pytest.approx(4 / 59, rel=0.1)


@given(st.floats(1e-3, 1e3), st.integers(0, 58))
def test_the_participation_ratio_knows_no_scale_and_no_shift(scale: float, by: int) -> None:
    w = torch.randn(59, 1, generator=torch.Generator().manual_seed(1))
    assert float(participation(scale * w.roll(by, 0))) == pytest.approx(float(participation(w)), rel=1e-4)


def test_a_dead_neuron_has_no_ratio_and_no_nan() -> None:
    assert participation(torch.zeros(11, 2)).tolist() == [0, 0]


def test_what_is_gone_is_gone_and_the_given_model_stays() -> None:
    problem = trained(SMALL, 0)
    before = problem.predict("train")
    score = periodicity(problem.model)
    assert score.shape == (12,)
    without_some = without(problem, score.argsort()[:4])
    assert all(int((w.abs().sum(0) == 0).sum()) == 4 for w in without_some.model.parameters())
    assert torch.equal(problem.predict("train"), before)
    assert without(problem, torch.arange(12)).predict("train").abs().sum() == 0


def test_the_loss_is_the_mean_square_over_classes_and_rows() -> None:
    model = Quadratic(5, 3, seed=0)
    of = Problem(model, task="classification", train={"x": torch.tensor([[1, 4], [0, 2]]), "y": torch.tensor([0, 2])})
    expected = F.mse_loss(of.predict("train"), F.one_hot(torch.tensor([0, 2]), 5).float())
    assert squared("train")(step(of)).item() == pytest.approx(expected.item(), rel=1e-5)
