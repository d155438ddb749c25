"""Statistics and autoencoders of features, the terms of SCAR and LAF, and UNSIR's noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from oblivio import methods, records
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.plan import Plan, edit
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.core.term import Term
from oblivio.methods.unlearning.features.laf import align, embed, head, off, passes
from oblivio.methods.unlearning.features.scar import gone, hold, move
from oblivio.methods.unlearning.noise.unsir import draw_noise, give_noise, worst
from oblivio.modules.features import features
from oblivio.modules.vae import VAE, add_vae
from oblivio.records.feature_stats import EPS, distances, precision, shrunk, tukey


def problem(relu: bool = True, **facts: Any) -> Problem:
    """Three classes; all rows of class 2 go."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU() if relu else nn.Identity(), nn.Linear(6, 3))
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 3, generator=g), torch.arange(30) % 3
    sources = {"forget": (x[y == 2], y[y == 2]), "retain": (x[y < 2], y[y < 2]), "train": (x, y)}
    return Problem(model, proxy={"x": torch.rand(12, 3, generator=g)}, **sources, **facts)


def recorded(**facts: Any) -> Problem:
    given = problem(**facts)
    given.records["feature_stats"] = records.make("feature_stats", given)
    return given


def value(given: Problem, term: Term) -> float:
    """A term at the first step, over the whole sources."""
    with torch.no_grad():
        term.prepare(given)
    run: list[Tensor] = []
    given.nets.eval()

    class Read(Term):
        taps, keeps, frozen = term.taps, term.keeps, term.frozen

        @property
        def reads(self) -> Any:
            return term.reads

        def __call__(self, step: Step) -> Tensor:
            run.append(term(step))
            return 0.0 * run[-1]

    Run(Descent(Read(), opt=sgd(0.0), steps=1, batch=None), given).go()
    return float(run[0].detach())


# --- features and their statistics


def test_features_are_what_the_head_is_given() -> None:
    given = problem()
    x = torch.cat([batch["x"] for batch in given.source("train").batches(4)])
    net = given.model
    assert isinstance(net, nn.Sequential)
    assert torch.allclose(features(given, "train"), net[1](net[0](x)))
    assert not net[2]._forward_pre_hooks


def test_shrinking_by_hand() -> None:
    covariance = torch.tensor([[2.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    expected = covariance + 3 * 2 * torch.eye(3) + 2 * 1 * (1 - torch.eye(3))
    assert torch.allclose(shrunk(covariance, 3.0, 2.0), expected)


def test_precision_inverts_the_shrunk_correlation() -> None:
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c = shrunk(shrunk(torch.cov(rows.T), 3.0, 3.0), 3.0, 3.0)
    correlation = c / c.diagonal().sqrt().outer(c.diagonal().sqrt())
    assert torch.allclose(precision(rows, 3.0, 3.0) @ correlation, torch.eye(4, dtype=torch.float64), atol=1e-8)


@given(st.integers(1, 6), st.integers(1, 5))
def test_precision_is_finite_for_few_and_constant_rows(rows: int, width: int) -> None:
    assert bool(precision(torch.ones(rows, width, dtype=torch.float64), 3.0, 3.0).isfinite().all())


def test_distances_by_hand() -> None:
    p = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    stats = {"mean": torch.tensor([[3.0, 4.0], [1.0, 0.0]]), "precision": torch.stack([p, torch.eye(2)]), "delta": 0.5}
    z = torch.tensor([[4.0, 9.0]])
    row = torch.tensor([2.0, 3.0]) / math.sqrt(13)
    u, v = row - torch.tensor([0.6, 0.8]), row - torch.tensor([1.0, 0.0])
    assert torch.allclose(distances(z, stats)[0], torch.stack([u @ p @ u, v @ v]), atol=1e-5)


def test_the_slope_of_the_root_is_finite_at_zero_and_right_elsewhere() -> None:
    stats = {"mean": torch.rand(2, 3).double(), "precision": torch.eye(3).double().expand(2, 3, 3), "delta": 0.5}
    z = torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: distances(z, stats), z)
    zero = torch.zeros(1, 3, requires_grad=True)
    distances(zero, stats).sum().backward()
    assert zero.grad is not None
    assert bool(zero.grad.isfinite().all())
    assert float(tukey(torch.zeros(()), 0.5)) == pytest.approx(EPS**0.5)


def test_the_record_counts_and_averages_every_class() -> None:
    given = recorded()
    stats, rows = given.records["feature_stats"], features(given, "train")
    assert stats["classes"].tolist() == [0, 1, 2]
    assert stats["count"].tolist() == [10, 10, 10]
    assert stats["precision"].shape == (3, 6, 6)
    assert torch.allclose(stats["mean"][1], tukey(rows[1::3], 0.5).mean(0), atol=1e-6)


def test_features_below_zero_and_other_labels_are_refused() -> None:
    with pytest.raises(BadInput, match="features below zero have no Tukey root"):
        records.make("feature_stats", problem(relu=False))
    with pytest.raises(BadInput, match="no class numbers"):
        records.make("feature_stats", Problem(nn.Linear(2, 1), train=(torch.rand(4, 2), torch.rand(4))))


# --- SCAR


def test_targets_are_the_nearest_class_that_stays() -> None:
    given, term = recorded(), move("forget")
    assert gone(given, "forget").tolist() == [2]
    term.prepare(given)
    apart = distances(features(given, "forget"), given.records["feature_stats"])
    assert term.state["target"].tolist() == apart[:, :2].argmin(1).tolist()
    assert value(given, term) == pytest.approx(float(apart[:, :2].amin(1).mean()), rel=1e-5)


def test_a_class_of_which_rows_stay_is_not_gone() -> None:
    given = recorded()
    given.sources["forget"] = given.source("forget").take([0, 1])
    assert gone(given, "forget").tolist() == []


def test_hold_by_hand() -> None:
    """At weights that have moved: the class that goes has the row's lowest output, and its own rows count nothing."""
    given, term = recorded(), hold("proxy", "forget", 2.0)
    start = given.predict("proxy").clone()

    @edit
    def shift(problem: Problem) -> None:
        problem.model.get_parameter("2.bias").add_(torch.tensor([0.3, -0.2, 0.1]))

    seen: list[float] = []

    class Read(Term):
        frozen, reads = term.frozen, ("proxy",)  # type: ignore[assignment]

        def prepare(self, problem: Problem) -> None:
            term.prepare(problem)

        def __call__(self, step: Step) -> Tensor:
            loss = term(step)
            seen.append(float(loss.detach()))
            return 0.0 * loss

    Run(shift() >> Descent(Read(), opt=sgd(0.0), steps=1, batch=None), given).go()
    target = start.clone()
    target[:, 2] = start.min(1).values
    kl = F.kl_div(given.predict("proxy").log_softmax(1), (target / 2).softmax(1), reduction="none").sum(1)
    assert seen == [pytest.approx(float((kl * (start.argmax(1) != 2)).mean()), rel=1e-4)]


def test_scar_says_which_record_is_missing() -> None:
    with pytest.raises(BadInput, match="scar needs the record feature_stats"):
        Run(methods.scar(), problem()).go()


# --- LAF


def test_the_autoencoder_s_loss_by_hand() -> None:
    torch.manual_seed(0)
    net = VAE(3, [4], 2)
    net.centre.copy_(torch.tensor([1.0, 0.0, 2.0]))
    net.scale.fill_(2.0)
    x, noise = torch.randn(5, 3), torch.randn(5, 2)
    z = (x - torch.tensor([1.0, 0.0, 2.0])) / 2
    mean, spread = net.encoder(z)[:, :2], net.encoder(z)[:, 2:]
    drawn = net.decoder(mean + (spread / 2).exp() * noise)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mean, (spread / 2).exp()), normal(0.0, 1.0)).sum(1)
    assert torch.allclose(net.loss(x, noise, 0.1), (drawn - z).square().sum(1) + 0.1 * kl, atol=1e-5)
    assert torch.allclose(net(x), (net.decoder(mean) - z).square().sum(1))


def test_an_autoencoder_of_a_name_that_is_taken_is_refused() -> None:
    nets: dict[str, nn.Module] = {"vae": nn.Identity()}
    with pytest.raises(BadInput, match="a net 'vae' already"):
        add_vae(nets, name="vae", width=2, hidden=[2], latent=1, seed=0)


def embedded() -> Problem:
    given = problem()
    Run(embed(latent=2), given).go()
    return given


def test_embedding_makes_the_features_and_brings_them_to_one_scale() -> None:
    given = embedded()
    net = given.nets["everything"]
    assert isinstance(net, VAE)
    rows = next(given.source("everything").batches(100))["x"]
    assert len(rows) == 30
    assert float(net.scaled(rows).square().sum(1).mean()) == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(next(given.source("leaving").batches(100))["x"], features(given, "forget"))


def test_off_is_rho_of_the_error() -> None:
    given = embedded()
    net = given.nets["leaving"]
    assert isinstance(net, VAE)
    with torch.no_grad():
        m = net(features(given, "forget"))
    assert value(given, off("forget", "leaving")) == pytest.approx(float((m / (m + 1)).exp().mean()), rel=1e-5)


def test_align_by_hand() -> None:
    given = embedded()
    assert value(given, align(5.0)) == pytest.approx(-math.log(10), abs=1e-5)  # at the start nothing has turned
    before = {on: features(given, on) for on in ("retain", "forget")}
    seen: list[float] = []

    @edit
    def shift(problem: Problem) -> None:
        problem.model.get_parameter("0.bias").add_(torch.linspace(-1, 1, 6))

    class Read(Term):
        whole, keeps, taps, reads = True, ("start",), ("features",), ("retain", "forget")  # type: ignore[assignment]

        def __call__(self, step: Step) -> Tensor:
            loss = align(5.0)(step)
            seen.append(float(loss.detach()))
            return 0.0 * loss

    Run(shift() >> Descent(Read(), opt=sgd(0.0), steps=1, over="retain", batch=None), given).go()
    turned = {on: 1 - F.cosine_similarity(features(given, on), rows) for on, rows in before.items()}
    expected = turned["retain"].mean() - (turned["forget"] / 5).exp().sum().log()
    assert seen == [pytest.approx(float(expected), rel=1e-4)]


def test_the_head_is_the_feature_layer_and_what_follows() -> None:
    assert sorted(head().select(problem())) == ["model.2.bias", "model.2.weight"]
    assert sorted(head().select(problem(features="1"))) == ["model.2.bias", "model.2.weight"]


def test_the_head_moves_in_the_repair_alone() -> None:
    given = problem()
    before = given.model.get_parameter("2.weight").clone()
    Run(methods.laf(vae_steps=2, epochs=2), given).go()
    assert torch.equal(given.model.get_parameter("2.weight"), before)
    given = problem()
    Run(methods.laf(vae_steps=2, epochs=2, repair=1.0), given).go()
    assert not torch.equal(given.model.get_parameter("2.weight"), before)


@given(st.integers(1, 9), st.integers(1, 30))
def test_passes_counts_the_steps_over_forgotten_rows(epochs: int, batch: int) -> None:
    assert passes(epochs, batch)(problem()) == epochs * math.ceil(10 / batch)


# --- UNSIR


def test_noise_has_rows_of_every_class_that_goes() -> None:
    given = problem()
    Run(draw_noise(4) >> give_noise(), given).go()
    made = next(given.source("noise").batches(100))
    assert made["y"].tolist() == [2, 2, 2, 2]
    assert made["x"].shape == (4, 3)
    assert torch.equal(made["x"], given.nets["noise"].get_parameter("x"))


def test_worst_by_hand_and_only_the_noise_moves() -> None:
    given = problem()
    Run(draw_noise(4), given).go()
    noise = given.nets["noise"].get_parameter("x")
    loss = F.cross_entropy(given.model(noise), torch.full((4,), 2))
    by_hand = 0.1 * noise.square().sum(1).mean() - loss
    slope = torch.autograd.grad(by_hand, noise)[0]
    assert torch.allclose(given.gradient(worst(0.1), "noise.*")["noise.x"], slope, atol=1e-6)
    before, weight = float(loss.detach()), given.model.get_parameter("0.weight").clone()
    Run(Descent(worst(0.0), "noise.*", opt=sgd(5.0), steps=20), given).go()
    after = F.cross_entropy(given.model(noise), torch.full((4,), 2)).detach()
    assert float(after) > before + 0.2
    assert torch.equal(given.model.get_parameter("0.weight"), weight)


def test_unsir_refuses_without_retained_rows_before_anything_is_made() -> None:
    given = problem()
    del given.sources["retain"]
    with pytest.raises(BadInput, match="no source 'retain'"):
        Run(methods.unsir(), given).go()
    assert list(given.nets) == ["model"]


def test_unsir_learns_impairs_and_repairs() -> None:
    plan = methods.unsir(rows=3, steps=2)
    assert isinstance(plan, Plan)
    losses = [repr(stage.loss) for stage in plan.stages if isinstance(stage, Descent)]
    assert losses == ["worst(pull=0.1)", "fit('noise') + fit('retain')", "fit('retain')"]
