"""Efficiently Robustify: augmentation, the choice of a head, the weight of a teacher, what is tuned."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from oblivio import Problem, methods, protect
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.methods.protection.efficient_robustify import (
    ThreeHeads,
    certainty,
    clean,
    combined,
    divide,
    hire,
    robust,
    selected,
    tail,
)
from oblivio.sources.augment import augment

SHORT = {"teacher_epochs": 2, "epochs": 2}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    first, second, last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last).eval()


def problem(seed: int = 0) -> Problem:
    x = torch.randn(40, 4, generator=rng())
    y = torch.randint(3, (40,), generator=rng(1))
    return Problem(network(), task="classification", seed=seed, retain=(x, y), test=(x, y))


# --- augmentation


@given(st.integers(0, 3), st.integers(0, 99))
def test_an_image_is_moved_by_whole_pixels_and_zeros_come_in(shift: int, seed: int) -> None:
    x = torch.rand(5, 2, 6, 4, generator=rng(seed)) + 1
    out = augment(x, 0.0, shift, rng(seed))
    assert out.shape == x.shape
    wide = F.pad(x, (shift,) * 4)
    for before, after in zip(wide, out, strict=True):
        places = [(i, j) for i in range(2 * shift + 1) for j in range(2 * shift + 1)]
        assert any(torch.equal(before[:, i : i + 6, j : j + 4], after) for i, j in places)


def test_rows_that_are_no_images_get_noise_alone_and_no_more_than_asked() -> None:
    x = torch.zeros(400, 500)
    assert torch.equal(augment(x, 0.0, 1, rng()), x)
    deviations = augment(x, 0.5, 1, rng()).std(1)
    assert deviations.max() < 0.56
    assert deviations.min() < 0.05
    assert deviations.mean() == pytest.approx(0.25, abs=0.03)


# --- the choice of a head


def logits(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities]).log()


def test_heads_that_agree_leave_it_to_the_combined_one() -> None:
    mid, sure = logits(0.5, 0.3, 0.2), logits(0.98, 0.01, 0.01)
    assert torch.equal(selected(mid, sure, sure, 0.0), mid)


def test_of_heads_that_disagree_the_surest_answers() -> None:
    mid, even, sure = logits(0.5, 0.3, 0.2), logits(0.4, 0.3, 0.3), logits(0.02, 0.97, 0.01)
    for outs in ((mid, even, sure), (mid, sure, even), (sure, mid, logits(0.1, 0.2, 0.7))):
        assert torch.equal(selected(*outs, 0.1), sure)


def test_they_disagree_above_the_mean_of_both_divergences() -> None:
    p, q = (torch.tensor(v, dtype=torch.float64) for v in ((0.7, 0.2, 0.1), (0.2, 0.2, 0.6)))
    apart = float((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
    outs = torch.zeros(1, 3, dtype=torch.float64), p.log()[None], q.log()[None]
    assert torch.equal(selected(*outs, apart + 1e-9), outs[0])
    assert torch.equal(selected(*outs, apart - 1e-9), outs[1])


@given(st.integers(0, 99), st.floats(0, 3))
def test_every_row_is_one_of_the_three(seed: int, disagree: float) -> None:
    outs = torch.randn(3, 7, 4, generator=rng(seed)) * 3
    got = selected(*outs, disagree)
    assert bool((got == outs).all(2).any(0).all())
    rows = [selected(*(o[i : i + 1] for o in outs), disagree) for i in range(7)]
    assert torch.allclose(got, torch.cat(rows))


# --- the teacher's weight


def test_certainty_is_one_less_the_share_of_the_greatest_entropy() -> None:
    sure, even = torch.tensor([[50.0, 0.0, 0.0]]), torch.zeros(1, 3)
    assert float(certainty(sure)) == pytest.approx(1)
    assert float(certainty(even)) == pytest.approx(0, abs=1e-6)
    half = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)) / math.log(3)
    assert float(certainty(logits(0.5, 0.25, 0.25))) == pytest.approx(1 - half, abs=1e-6)


# --- structure, terms and plan


def test_dividing_the_head_changes_no_output_and_a_second_time_is_refused() -> None:
    p = problem()
    before = p.predict("test")
    Run(divide(0.1), p).go()
    assert torch.equal(p.predict("test"), before)
    assert p.features == "model.4.robust"
    with pytest.raises(BadInput, match="three heads already"):
        Run(divide(0.1), p).go()


def test_a_model_without_a_linear_last_layer_as_its_feature_layer_is_refused() -> None:
    other = Problem(network(), task="classification", features="2", retain=problem().source("retain"))
    with pytest.raises(BadInput, match="last linear layer '4'"):
        Run(divide(0.1), other).go()
    none = Problem(nn.Sequential(nn.Flatten()), task="classification", retain=(torch.zeros(2, 3), torch.tensor([0, 1])))
    with pytest.raises(BadInput, match="no linear layer"):
        Run(divide(0.1), none).go()


def test_the_tail_is_the_heads_and_the_last_layers_but_never_the_first() -> None:
    p = problem()
    Run(divide(0.1), p).go()
    heads = {f"model.4.{head}.{w}" for head in ("combined", "clean", "robust") for w in ("weight", "bias")}
    for layers in (1, 2, 9):
        assert set(tail(layers).select(p)) == heads | {"model.2.weight", "model.2.bias"}


def test_the_three_terms_by_hand() -> None:
    p = problem()
    Run(divide(0.1), p).go()
    p.keep("given")
    Run(hire(8), p).go()
    with torch.no_grad():
        for weight in tail(1).select(p):
            p.nets.get_parameter(weight).add_(0.3 * torch.randn(p.nets.get_parameter(weight).shape, generator=rng(7)))
    heads = p.model[4]
    assert isinstance(heads, ThreeHeads)
    step = Step(p, "test", tail(1).select(p), None, taps=("model.4.robust",), train=False)
    x, y, start = step.batch("retain")["x"], step.batch("retain")["y"], network()
    got = [float(t(step).detach()) for t in (clean("retain"), robust("retain", 0.3, 0), combined("retain", 0.3, 0))]
    noisy = next(iter(step._extras.values()))
    assert not torch.equal(noisy, x)
    c, k, _ = heads.each(p.model[:4](x))
    cn, _, rn = heads.each(p.model[:4](noisy))
    taught = p.nets["teacher"](noisy)

    def kl(target: Tensor, out: Tensor) -> Tensor:
        q = target.softmax(1)
        return (q * (q.log() - out.log_softmax(1))).sum(1)

    w = certainty(taught)
    expected = [kl(start(x), k).mean(), (w * kl(taught, rn)).mean(),
                F.cross_entropy(c, y) + (w * kl(taught, cn)).mean()]  # fmt: skip
    assert got == pytest.approx([float(e.detach()) for e in expected], rel=1e-4)


def test_the_trunk_keeps_its_bits_and_the_teacher_goes() -> None:
    p = problem()
    outcome = protect(p, "efficient_robustify", **SHORT)
    first = outcome.model.get_parameter("0.weight")
    assert torch.equal(first, p.model.get_parameter("0.weight"))
    assert not torch.equal(outcome.model.get_parameter("2.weight"), p.model.get_parameter("2.weight"))
    assert isinstance(outcome.model.get_submodule("4"), ThreeHeads)
    assert list(outcome.problem.nets) == ["model"]


def test_the_teacher_stays_as_it_was_taught_while_the_model_learns() -> None:
    plan, seen = methods.efficient_robustify(**SHORT), []

    def watch(run: Run, stage: Descent, step: Step) -> None:
        if stage.place == "plan/stages.4":
            seen.append(run.problem.nets["teacher"][1].weight.detach().clone())

    Run(plan, problem(), watch=[watch]).go()
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[-1])


@pytest.mark.parametrize("setting", [{"noise": -1.0}, {"shift": -1}, {"layers": 0}, {"width": 0}, {"disagree": -0.1}])
def test_a_setting_out_of_its_range_is_refused_by_name(setting: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(setting))):
        methods.efficient_robustify(**setting)
