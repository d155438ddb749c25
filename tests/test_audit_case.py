"""What models give on one pass over every source, and which rows stand beside which."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import oblivio as ob
from oblivio.audits.audit import audit
from oblivio.audits.case import Case, gather
from oblivio.audits.probe import DoesNotApply, Figure, Probe, Value, average, figure, share
from oblivio.audits.seen import pooled, weighted
from oblivio.audits.subjects import Subject, mask, noise_until
from oblivio.core.errors import BadInput

X = torch.randn(120, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(120) % 3


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3))


def problem(gone: Tensor, **more: Any) -> ob.Problem:
    train = torch.arange(120) < 80
    return ob.Problem(network(), forget=(X[gone & train], Y[gone & train]), retain=(X[~gone & train], Y[~gone & train]),
                      test=(X[~train], Y[~train]), **more)  # fmt: skip


def seen(of: ob.Problem, classes: tuple[int, ...] = (), *more: Subject) -> Case:
    nets = dict(of.nets.items())
    return gather(of, [Subject("outcome", "outcome", nets), Subject("original", "original", nets), *more], classes)


def test_outputs_features_and_layers_are_those_of_the_model() -> None:
    of = problem(Y == 2)
    case, model = seen(of, (2,)), of.model.eval()
    x = of.source("test").batch(torch.arange(40))["x"]
    found = case.outcome["test"]
    assert torch.allclose(found.out, model(x), atol=1e-6)
    assert torch.allclose(found.features, model[:-1](x), atol=1e-6)
    assert list(found.layers) == ["0", "3", "5"]
    assert torch.allclose(found.layers["0"], model[0](x).mean((2, 3)), atol=1e-6)
    assert torch.equal(found.quality, (model(x).argmax(1) == Y[80:]).float())
    assert case.outcome["retain"].layers == {}
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in of.model.modules())
    assert of.passes == {}


def test_unseen_rows_are_of_the_forgotten_classes_and_kept_rows_of_the_others() -> None:
    case = seen(problem(Y == 2), (2,))
    assert set(case.targets["test"][case.unseen].tolist()) == {2}
    assert set(case.targets["test"][case.kept].tolist()) == {0, 1}
    ((weight, gone, beside),) = case.strata()
    assert (weight, len(gone), len(beside)) == (1.0, len(case.targets["forget"]), len(case.unseen))
    rows = seen(problem(torch.arange(120) % 10 == 0))
    assert len(rows.kept) == len(rows.unseen) == 40
    assert sum(weight for weight, _, _ in rows.strata()) == pytest.approx(1)


def test_a_mask_hides_outputs_and_no_features() -> None:
    of = problem(Y == 2)
    case = seen(of, (2,), Subject("masked", "control", mask(dict(of.nets.items()), [2])))
    masked, original = case.looks[-1], case.original
    assert masked["forget"].quality.sum() == 0
    assert torch.equal(masked["forget"].features, original["forget"].features)
    assert list(masked["test"].layers) == list(original["test"].layers)


def test_a_named_feature_layer_is_found_behind_a_mask() -> None:
    of = problem(Y == 2, features="3")
    case = seen(of, (2,), Subject("masked", "control", mask(dict(of.nets.items()), [2])))
    assert case.original["test"].features.shape == (40, 20)
    assert torch.equal(case.looks[-1]["test"].features, case.original["test"].features)


def test_a_model_without_a_linear_layer_has_no_features() -> None:
    bare = nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten())
    of = ob.Problem(bare, forget=(X[:9], Y[:9]), retain=(X[9:80], Y[9:80]), test=(X[80:], Y[80:]))
    case = seen(of)
    assert case.original["test"].features is None
    report = audit(of, [look.subject for look in case.looks], leave_out=["relearning"])
    states = {each["id"]: each["state"] for each in report["figures"]}
    assert states["linear_probe"] == "does not apply"
    assert "failed" not in states.values()


def test_maps_and_tokens_are_averaged() -> None:
    assert pooled(torch.ones(2, 3, 4, 5)).shape == (2, 3)
    assert pooled(torch.ones(2, 7, 3)).shape == (2, 3)
    assert list(weighted(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU()))) == ["0"]


def test_noise_is_as_large_as_it_takes() -> None:
    model = ob.learn(network(), (X, Y), {"optimiser": "adamw", "lr": 0.01, "epochs": 60})
    of = ob.Problem(model, forget=(X[:40], Y[:40]))
    before = of.score("forget")
    noisy = ob.Problem(noise_until(of, 0.5, 0)["model"], forget=(X[:40], Y[:40]))
    assert noisy.score("forget") <= 0.5 < before
    assert of.score("forget") == before


# --- probes and their figures


def measured(measure: Any, **facts: Any) -> Figure:
    return figure(Probe("own", "gone", "own", "share", measure, **facts), seen(problem(Y == 2), (2,)))


def test_a_figure_is_a_number_or_says_why_not() -> None:
    assert measured(lambda *_: Value(0.5)).values["original"].value == 0.5
    missing = measured(lambda *_: Value(0.5), needs=("affected",))
    assert (missing.state, missing.why) == ("does not apply", "there are no affected rows with targets")

    def pointless(*_: Any) -> Value:
        raise DoesNotApply("it means nothing")

    assert (measured(pointless).state, measured(pointless).why) == ("does not apply", "it means nothing")
    broken = measured(lambda *_: Value(float("nan")))
    assert (broken.state, broken.why) == ("failed", "ValueError: the figure is nan")
    assert measured(lambda *_: 1 / 0).why == "ZeroDivisionError: division by zero"


def test_a_probe_that_fails_is_in_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    from oblivio.audits import probe as probes

    monkeypatch.setitem(probes.PROBES, "broken", Probe("broken", "gone", "broken", "share", lambda *_: 1 / 0))
    of = problem(Y == 2)
    report = audit(of, [look.subject for look in seen(of).looks], [2], leave_out=["relearning", "mia_confidence"])
    assert "there are no references" in report.verdict.reasons[0]
    assert "the probe broken failed: ZeroDivisionError: division by zero" in report.verdict.reasons
    assert next(f["state"] for f in report["figures"] if f["id"] == "broken") == "failed"


def test_intervals_over_rows() -> None:
    found = share(torch.tensor([1.0] * 8 + [0.0] * 2))
    assert (found.value, found.rows) == (0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.490162, 0.943318), abs=1e-6)  # Wilson, 8 of 10
    assert share(torch.zeros(5)).low == pytest.approx(0)
    mean = average(torch.tensor([1.0, 2.0, 3.0]))
    assert (mean.low, mean.high) == pytest.approx((2 - 1.959964 / 3**0.5, 2 + 1.959964 / 3**0.5))
    with pytest.raises(DoesNotApply, match="no such rows"):
        share(torch.zeros(0))


def test_an_unknown_probe_cannot_be_left_out() -> None:
    of = problem(Y == 2)
    with pytest.raises(BadInput, match="no probe 'relearn'; did you mean 'relearning'"):
        audit(of, [look.subject for look in seen(of).looks], [2], leave_out=["relearn"])


def test_figures_have_one_order_whichever_file_was_imported_first() -> None:
    from oblivio.audits import probe as probes

    shuffled = dict(reversed(list(probes.PROBES.items())))
    before = list(probes.known())
    probes.PROBES.clear()
    probes.PROBES.update(shuffled)
    assert list(probes.known()) == before
    assert before.index("forget") < before.index("retain") < before.index("by_class")
