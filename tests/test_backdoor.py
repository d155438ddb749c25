"""Exposing and cutting off a backdoor, and what looks for one."""

from __future__ import annotations

import pytest
import torch
from small import mlp, problem, rows, step
from torch import nn
from torch.nn import functional as F

from oblivio import methods
from oblivio.audits.backdoor import Trigger, anomaly, histogram, recover
from oblivio.core.errors import BadInput
from oblivio.core.plan import Plan
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.methods.unlearning.backdoor.ebyd import attach, cut, layers, masked, masks


def opened() -> Problem:
    """A problem with masks, before any of them moved."""
    of = problem()
    Run(Plan([attach()]), of).go()
    return of


def set_masks(of: Problem, values: list[float]) -> None:
    with torch.no_grad():
        next(of.nets["masks"].parameters()).copy_(torch.tensor(values))


def test_masks_of_one_change_nothing_and_there_is_one_a_channel_before_the_head() -> None:
    of = opened()
    assert layers(of) == ["0"]
    assert [len(m) for m in of.nets["masks"].parameters()] == [5]
    plain = F.cross_entropy(of.predict("retain"), torch.cat([b["y"] for b in of.source("retain").batches(99)]))
    assert masked("retain")(step(of)).item() == pytest.approx(plain.item(), rel=1e-5)


def test_a_mask_scales_its_channel_and_has_the_gradient_of_a_finite_difference() -> None:
    of = opened()
    values = [1.0, 0.3, 0.8, 0.0, 1.0]
    set_masks(of, values)
    now = step(of, "masks.*")
    got = masked("retain").grad(now)["masks.0"]
    scaled = of.copy()
    with torch.no_grad():
        for w in scaled.model[0].parameters():
            w.mul_(torch.tensor(values).view(-1, *[1] * (w.dim() - 1)))
    expected = F.cross_entropy(scaled.predict("retain"), torch.cat([b["y"] for b in of.source("retain").batches(99)]))
    assert masked("retain")(now).item() == pytest.approx(expected.item(), rel=1e-5)
    for i in range(5):
        ends = []
        for eps in (0.01, -0.01):
            set_masks(of, [v + eps * (j == i) for j, v in enumerate(values)])
            ends.append(masked("retain")(step(of, "masks.*")).item())
        assert got[i].item() == pytest.approx((ends[0] - ends[1]) / 0.02, abs=2e-4)


def test_the_lowest_masks_are_cut_out_of_the_suspicious_model() -> None:
    of = problem()
    of.keep("suspicious")
    before = {n: w.detach().clone() for n, w in of.weights().items()}
    with torch.no_grad():
        for w in of.weights().values():
            w.add_(1.0)  # exposure moved it
    Run(Plan([attach()]), of).go()
    set_masks(of, [0.9, 0.1, 1.0, 0.2, 0.5])
    Run(Plan([cut(0.4)]), of).go()
    after = of.weights()
    for name in ("model.0.weight", "model.0.bias"):
        assert after[name][[1, 3]].abs().sum() == 0
        assert torch.equal(after[name][[0, 2, 4]], before[name][[0, 2, 4]])
    assert torch.equal(after["model.2.weight"], before["model.2.weight"])
    assert "masks" not in of.nets
    assert masks().select(of) == {}


def test_a_share_below_one_channel_cuts_one() -> None:
    of = problem()
    of.keep("suspicious")
    Run(Plan([attach(), cut(0.001)]), of).go()
    assert int((of.model[0].weight.abs().sum(1) == 0).sum()) == 1


def test_without_exposure_and_tuning_every_other_channel_keeps_its_bits() -> None:
    of = problem()
    start = of.copy()
    Run(methods.ebyd(expose_epochs=0, tune_epochs=0, share=0.2, mask_epochs=3), of).go()
    same = (of.model[0].weight == start.model[0].weight).all(1)
    assert int(same.sum()) == 4
    assert torch.equal(of.model[2].weight, start.model[2].weight)


# --- looking for one


def planted() -> Problem:
    """Class 2 wherever the last of six columns is near 1, whatever else is there."""
    model = nn.Linear(6, 4)
    with torch.no_grad():
        model.weight.copy_(torch.cat([5 * torch.eye(4), torch.zeros(4, 2)], 1))
        model.weight[2, 5] = 40.0
        model.bias.copy_(torch.tensor([0.0, 0.0, -10.0, 0.0]))
    x = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    x[:, 5] = 0
    return Problem(model, retain=(x, x[:, :4].argmax(1)), task="classification")


def test_the_planted_trigger_is_small_and_where_it_was_planted() -> None:
    of = planted()
    norms = torch.tensor([recover(of, "retain", c)[0] for c in range(4)])
    _, trigger = recover(of, "retain", 2)
    mask = trigger.cover.detach().sigmoid()
    assert int(mask.argmax()) == 5
    assert float(trigger.paint.detach()[5].sigmoid()) > 0.9
    assert int(norms.argmin()) == 2
    assert "trigger" not in of.nets
    with torch.no_grad():
        x = next(iter(of.source("retain").batches(99)))["x"]
        assert float((of.model(trigger(x)).argmax(1) == 2).float().mean()) > 0.95


def test_a_trigger_paints_what_its_mask_covers() -> None:
    trigger = Trigger([1, 2, 2])
    with torch.no_grad():
        trigger.cover.copy_(torch.tensor([[100.0, -100.0], [-100.0, 0.0]]))
        trigger.paint.fill_(100.0)
    x = torch.full((3, 1, 2, 2), 0.2)
    assert trigger(x)[0, 0].flatten().tolist() == pytest.approx([1.0, 0.2, 0.2, 0.6])


def test_the_histogram_is_of_answers() -> None:
    of = Problem(mlp(), retain=rows(20, 6))
    shares = histogram(of, "retain")
    assert shares.shape == (4,)
    assert shares.tolist() == pytest.approx(
        [float((of.predict("retain").argmax(1) == c).float().mean()) for c in range(4)]
    )


def test_only_a_norm_far_below_the_median_is_odd() -> None:
    found = anomaly(torch.tensor([9.0, 10.0, 11.0, 10.5, 2.0, 30.0]))
    assert (found > 2).tolist() == [False, False, False, False, True, False]
    assert found[4].item() == pytest.approx((10.0 - 2.0) / (1.4826 * 1.0))
    with pytest.raises(BadInput, match="three or more"):
        anomaly(torch.tensor([1.0, 2.0]))
