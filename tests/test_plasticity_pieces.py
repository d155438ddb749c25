"""Pieces that keep a network able to learn, or make it forget little: CBP, spectral, Hard ASH, the pairwise layer."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from oblivio import how, methods, networks, terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import Opt, adagrad, adam, rmsprop, sgd
from oblivio.core.part import walk
from oblivio.core.plan import Stage, keep
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.surgery import replay
from oblivio.learners import Learner
from oblivio.methods.pieces.cbp import Renewal
from oblivio.methods.pieces.pairwise_layer import FLOOR, SMAS
from oblivio.modules.ash import Ash, UnitRows
from oblivio.modules.chain import links
from oblivio.modules.pairwise import Pairwise, Winners

PIECES = ("cbp", "spectral_reg", "hard_ash", "pairwise_layer")


def rows(n: int = 12, columns: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed)), torch.arange(n) % 4


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    net = networks.build("mlp", (3,), 4, hidden=widths or (6,))
    assert isinstance(net, nn.Sequential)
    return net


def plan(steps: int = 1, opt: Opt | None = None, **options: Any) -> Stage:
    return Descent(terms.fit("new"), over="new", steps=steps, batch=None, opt=opt or sgd(0.1), **options)


def learned(stage: Stage, model: nn.Module | None = None, data: Any = None, times: int = 1) -> Learner:
    learner = Learner(model or mlp(), stage, "classification")
    for _ in range(times):
        learner.learn(new=data or rows())
    return learner


def part(learner: Learner, kind: type[Any]) -> Any:
    return next(p for _, p in walk(learner.plan) if isinstance(p, kind))


# --- chains


def test_a_chain_says_which_layer_reads_which_units() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU()), nn.Linear(5, 4))
    (link,) = links(net)
    assert (link.layer, link.next, link.units, link.norms, link.activations) == ("1.0", "2", 5, ["1.1"], ["1.2"])
    found = [(link.layer, link.next, link.units) for link in links(networks.build("small-cnn", (1, 8, 8), 10))]
    assert found == [("conv1", "conv2", 16), ("conv2", "hidden", 32), ("hidden", "head", 128)]


SHARED = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nn.Linear(3, 2), "no chain with a hidden layer"),
        (networks.build("resnet18", (3, 8, 8), 10, width=2), r"stages\.0\.0 \(Block\) stands between layers"),
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)), "LayerNorm"),
        (nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2)), "grouped"),
        (nn.Sequential(SHARED, nn.ReLU(), SHARED), "more than once"),
    ],
    ids=["one layer", "resnet", "layer norm", "groups", "shared"],
)
def test_what_is_no_chain_is_refused(net: nn.Module, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        links(net)


# --- continual backprop


@pytest.mark.parametrize("utility", ["contribution", "adaptable"])
def test_utility_and_mean_are_the_cards(utility: str) -> None:
    net, (x, _) = mlp(), rows()
    before = copy.deepcopy(net)
    learner = learned(methods.cbp(utility=utility, eta=0.9)(plan()), net)
    h = before[1:3](x).detach()
    after = learner.model
    y = h.abs().mean(0)
    if utility == "adaptable":
        y = (h - h.mean(0)).abs().mean(0) / after.get_parameter("hidden1.weight").abs().mean(1)
    unit = part(learner, Renewal).state["units"]["hidden1"]
    assert torch.allclose(unit["f"] / (1 - 0.9), h.mean(0), atol=1e-6)
    assert torch.allclose(unit["u"] / (1 - 0.9), y * after.get_parameter("head.weight").abs().mean(0), atol=1e-6)
    assert unit["a"].tolist() == [1] * 6


def renewed(opt: Opt | None = None, net: nn.Module | None = None, **options: Any) -> Learner:
    """After three steps, at the third of which the one unit due is renewed: rho 1/6 of six units older than 2."""
    return learned(methods.cbp(rho=1 / 6 + 1e-9, maturity=2)(plan(3, opt, **options)), net)


def test_the_least_useful_unit_is_drawn_anew_and_its_mean_folded_into_the_next_bias() -> None:
    net, (x, _) = mlp(), rows()
    old, new = learned(plan(3), net).model, renewed(net=net).model
    W, b = old.get_parameter("hidden1.weight"), old.get_parameter("hidden1.bias")
    changed = (new.get_parameter("hidden1.weight") != W).any(1)
    assert int(changed.sum()) == 1
    i = int(changed.nonzero())
    V = old.get_parameter("head.weight")
    means = torch.stack([learned(plan(t), net).model[1:3](x).mean(0) if t else net[1:3](x).mean(0) for t in range(3)])
    weights = torch.tensor([0.99**2, 0.99, 1.0])
    f = (weights[:, None] * means).sum(0) / weights.sum()
    folded = old.get_parameter("head.bias") + V[:, i] * f[i]
    assert torch.allclose(new.get_parameter("head.bias"), folded, atol=1e-5)
    assert new.get_parameter("head.weight")[:, i].tolist() == [0] * 4
    assert new.get_parameter("hidden1.bias")[i].tolist() == 0
    assert new.get_parameter("hidden1.weight")[i].abs().max().tolist() <= math.sqrt(2) * math.sqrt(3 / 3)
    others = torch.arange(6) != i
    assert torch.equal(new.get_parameter("head.weight")[:, others], V[:, others])
    assert torch.equal(new.get_parameter("hidden1.bias")[others], b[others])


def test_a_renewed_unit_is_young_and_without_moments() -> None:
    learner = renewed(adam(0.01, carry=True))
    unit = part(learner, Renewal).state["units"]["hidden1"]
    i = int((unit["a"] == 0).nonzero())
    assert float(unit["u"][i]) == float(unit["f"][i]) == 0
    assert sorted(unit["a"].tolist()) == [0, 3, 3, 3, 3, 3]
    moments = part(learner, Opt).save()
    for name, at in (("hidden1.weight", (i,)), ("hidden1.bias", (i,)), ("head.weight", (slice(None), i))):
        assert not moments[f"model.{name}"]["exp_avg"][at].any()
        assert moments[f"model.{name}"]["exp_avg"].any()


def test_a_unit_with_a_weight_that_may_not_move_stays() -> None:
    for where in ("model.head.*", "model.hidden1.*"):
        new, old = renewed(where=where).model, learned(plan(3, where=where)).model
        assert all(torch.equal(a, b) for a, b in zip(new.parameters(), old.parameters(), strict=True))


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(20, 4),
    )  # fmt: skip


def test_filters_are_renewed_through_batch_norm_and_flattening() -> None:
    x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    stage = methods.cbp(rho=0.5, maturity=1)(plan(2, sgd(0.1, 0.9, carry=True)))
    learner = learned(stage, convolutions(), (x, torch.arange(8) % 4))
    first, second = (part(learner, Renewal).state["units"][name]["a"] == 0 for name in ("0", "3"))
    assert (int(first.sum()), int(second.sum())) == (2, 2)
    norm, head = learner.model[1], learner.model.get_parameter("6.weight").view(4, 5, 4)
    assert norm.weight[first].tolist() == norm.running_var[first].tolist() == [1, 1]
    assert norm.bias[first].tolist() == norm.running_mean[first].tolist() == [0, 0]
    assert not learner.model.get_parameter("3.weight")[~second][:, first].any()  # the others' rows are new themselves
    assert not head[:, second].any()
    assert head[:, ~second].all()
    moments = part(learner, Opt).save()["model.6.weight"]["momentum_buffer"].view(4, 5, 4)
    assert not moments[:, second].any()
    assert moments[:, ~second].any()


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 0.3), st.integers(0, 6), st.integers(1, 12))
def test_as_many_units_are_renewed_as_are_due(rho: float, maturity: int, steps: int) -> None:
    ages, r = torch.zeros(8, dtype=torch.long), 0.0

    def watch(run: Run, stage: Any, step: Any) -> None:
        nonlocal ages, r
        unit = stage.how[0].state["units"]["hidden1"]
        ready = ages + 1 > maturity
        r += rho * int(ready.sum())
        fresh = unit["a"] == 0
        assert int(fresh.sum()) == int(r)
        assert bool(ready[fresh].all())
        assert torch.equal(unit["a"][~fresh], ages[~fresh] + 1)
        r -= int(r)
        ages = unit["a"].clone()

    Learner(mlp(8), methods.cbp(rho=rho, maturity=maturity)(plan(steps)), "classification").learn(
        new=rows(), watch=[watch]
    )


def test_ages_go_on_over_experiences_and_go_with_forgotten_rows() -> None:
    x, y = rows()
    learner = Learner(mlp(), methods.cbp()(plan(5)), "classification")
    learner.learn(new={"x": x, "y": y, "id": torch.arange(12)}).learn(new={"x": x, "y": y, "id": torch.arange(12, 24)})
    assert part(learner, Renewal).state["units"]["hidden1"]["a"].tolist() == [10] * 6
    learner.forget([3])
    assert not part(learner, Renewal).state


def test_cbp_needs_a_plan_that_learns() -> None:
    with pytest.raises(BadInput, match="cbp follows what is learned"):
        methods.cbp()(Descent(-terms.fit("forget"), steps=1))
    with pytest.raises(BadInput, match="reads none of new, retain, train"):
        methods.pairwise_layer()(keep("a"))


# --- penalties on weights


def values(term: terms.spectral | Any, net: nn.Module, steps: int = 1) -> tuple[float, dict[str, Tensor]]:
    """The value at the last step, whose rate is zero, and the gradient there."""
    seen: list[Any] = []
    problem = Problem(net, task="classification", new=rows())
    watch = lambda run, stage, step: seen.append((stage.loss(step).item(), stage.loss.grad(step)))  # noqa: E731
    Run(Descent(term, over="new", steps=steps, batch=None, opt=sgd(0.0)), problem, watch=[watch]).go()
    return seen[-1]


def test_the_spectral_penalty_and_its_gradient_are_the_formulas() -> None:
    net = mlp(5, 5)
    with torch.no_grad():
        for bias in (p for n, p in net.named_parameters() if "bias" in n):
            bias.add_(0.5)
    value, grads = values(terms.spectral(2), net, steps=200)
    exact = sum(
        (torch.linalg.matrix_norm(w, 2) ** 2 - 1).square() if w.dim() > 1 else w.norm() ** 4 for w in net.parameters()
    )
    expected = torch.autograd.grad(exact, list(net.parameters()))
    assert value == pytest.approx(exact.item(), rel=1e-4)
    for got, wanted in zip(grads.values(), expected, strict=True):
        assert torch.allclose(got, wanted, atol=2e-3, rtol=1e-3)


def test_kernels_are_matrices_and_scales_are_held_at_one() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([1.0, 2.0, 1.0, 0.0]))
        net[4].bias.zero_()
    problem = Problem(net, task="classification", new=(torch.randn(4, 1, 4, 4), torch.arange(4)))
    seen: list[float] = []
    stage = Descent(terms.spectral(2), over="new", steps=100, opt=sgd(0.0))
    Run(stage, problem, watch=[lambda run, stage, step: seen.append(stage.loss(step).item())]).go()
    sizes = [torch.linalg.matrix_norm(w.flatten(1), 2) for w in (net[0].weight, net[4].weight)]
    assert seen[-1] == pytest.approx(sum((s.item() ** 2 - 1) ** 2 for s in sizes) + 9 + 1, rel=1e-3)


def test_the_iteration_goes_on_where_the_experience_before_ended() -> None:
    stage = methods.spectral_reg()(plan(3))
    together = part(learned(stage, times=2), terms.spectral).state
    apart = part(learned(stage), terms.spectral).state
    again = part(learned(stage, mlp(), times=1), terms.spectral).state
    assert all(torch.equal(apart[k], again[k]) for k in apart)
    weight = learned(stage, times=2).model.get_parameter("hidden1.weight")
    top = torch.linalg.svd(weight)[2][0]
    near = [abs((state["model.hidden1.weight/v"] @ top).item()) for state in (apart, together)]
    assert near[1] > near[0] or near[0] > 0.999


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 20))
def test_wasserstein_is_zero_at_the_start_and_blind_to_order(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    term, l2_init = terms.wasserstein(), terms.l2_init()
    start, w = torch.randn(4, 3, generator=g), torch.randn(4, 3, generator=g)
    kept = term.kept(start)
    assert float(term.distance(start, kept)) == 0
    shuffled = w.flatten()[torch.randperm(12, generator=g)].view(3, 4)
    assert torch.allclose(term.distance(w, kept), term.distance(shuffled, kept))
    assert float(term.distance(w, kept)) <= float(l2_init.distance(w, start)) + 1e-5  # no pairing is cheaper


def test_penalties_are_sums_and_start_where_the_model_did() -> None:
    net = mlp()
    value, grads = values(terms.l2(), net)
    assert value == pytest.approx(sum(p.square().sum().item() for p in net.parameters()), rel=1e-5)
    assert torch.allclose(grads["model.head.bias"], 2 * net.get_parameter("head.bias"))
    for kind in (terms.l2_init, terms.wasserstein):
        assert values(kind(), mlp())[0] == 0
        learner = learned(plan(5).but(loss=lambda total, kind=kind: total + 1e-3 * kind()), times=2)
        start = part(learner, kind).state["model.head.bias"]
        assert torch.equal(start.sort().values, mlp().get_parameter("head.bias").sort().values)


# --- hows


def test_no_weight_moves_further_than_the_limit() -> None:
    net = mlp()
    free, held = learned(plan(1, sgd(1.0)), net).model, learned(plan(1, sgd(1.0), how=how.limit(0.01)), net).model
    for w, a, b in zip(net.parameters(), free.parameters(), held.parameters(), strict=True):
        assert torch.allclose(b - w, (a - w).clamp(-0.01, 0.01), atol=1e-7)
    assert max((a - w).abs().max().item() for w, a in zip(net.parameters(), free.parameters(), strict=True)) > 0.02


def test_noise_and_decay_are_put_on_what_may_move_alone() -> None:
    net = mlp(200)
    stage = plan(1, sgd(0.0), where="model.hidden1.*", how=how.shrink_perturb(wd=0.0, sigma=0.1))
    new = learned(stage, net).model
    noise = new.get_parameter("hidden1.weight") - net.get_parameter("hidden1.weight")
    assert noise.std().item() == pytest.approx(0.1, rel=0.15)
    assert torch.equal(new.get_parameter("head.weight"), net.get_parameter("head.weight"))
    shrunk = learned(plan(1, sgd(0.1), how=how.shrink_perturb(wd=0.5, sigma=0.0)), net).model
    plain = learned(plan(1, sgd(0.1)), net).model
    pairs = zip(net.parameters(), plain.parameters(), shrunk.parameters(), strict=True)
    assert all(torch.allclose(c, b - 0.1 * 0.5 * a, atol=1e-6) for a, b, c in pairs)


@pytest.mark.parametrize("opt", [adagrad(0.1, initial=0.5), rmsprop(0.1, 0.9)], ids=["adagrad", "rmsprop"])
def test_the_first_step_of_an_optimiser_is_its_formula(opt: Opt) -> None:
    net = mlp()
    g = Problem(net, task="classification", new=rows()).gradient(terms.fit("new"))["model.head.weight"]
    step = learned(plan(1, opt), net).model.get_parameter("head.weight") - net.get_parameter("head.weight")
    squares = 0.5 + g**2 if opt.kind is torch.optim.Adagrad else 0.1 * g**2
    assert torch.allclose(step, -0.1 * g / squares.sqrt(), atol=1e-5)


def test_another_optimiser_and_how_reach_every_descent() -> None:
    opt = adagrad(0.1, carry=True)
    changed = (plan() >> plan()).but(how=how.limit(0.01), opt=opt)
    descents = [p for _, p in walk(changed) if isinstance(p, Descent)]
    assert [d.opt for d in descents] == [opt, opt]
    assert descents[0].how[0] is not descents[1].how[0]  # each with the hooks of its own stage


# --- Hard ASH


def test_hard_ash_by_hand_and_over_the_units_of_a_sample() -> None:
    x = torch.tensor([[0.0, 0.0, 0.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    m, s = 1.0, math.sqrt(3.0)
    u = 2 * (4 - m - 1 * s)
    assert torch.allclose(Ash(2.0, 1.0)(x)[0], torch.tensor([0, 0, 0, 2 * min(u / 6 + 0.5, 1)]))
    assert torch.allclose(Ash(2.0, 1.0)(x)[1], torch.full((4,), 0.5), atol=1e-5)
    assert float(Ash(2.0, 1.0, hard=False)(x)[0, 3]) == pytest.approx(4 / (1 + math.exp(-u)))
    assert torch.equal(Ash()(x[:1]), Ash()(x)[:1])  # the other sample changes nothing


def test_a_sample_of_equal_units_has_a_gradient() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    Ash()(x).sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 20), st.floats(0.1, 10), st.floats(-3, 3))
def test_unit_rows_are_blind_to_scale_and_shift_of_a_row(seed: int, scale: float, shift: float) -> None:
    torch.manual_seed(seed)
    layer, x = UnitRows(5, 3, bias=False), torch.randn(4, 5)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(scale).add_(shift)
    assert torch.allclose(layer(x), before, atol=1e-3)
    assert torch.allclose(layer(x + 7), before, atol=1e-2)


def test_hard_ash_changes_structure_once_and_the_journal_brings_it_back() -> None:
    net = mlp(6, 5)
    learner = learned(methods.hard_ash()(plan(2)), net, times=3)
    names = [type(m).__name__ for m in learner.model]
    assert names == ["Flatten", "UnitRows", "Ash", "UnitRows", "Ash", "Linear"]
    assert len(learner.problem.journal) == 1
    assert not [n for n, _ in learner.model.named_parameters() if "bias" in n]
    nets: dict[str, nn.Module] = {"model": mlp(6, 5)}
    replay(nets, learner.problem.journal)
    nets["model"].load_state_dict(learner.model.state_dict())
    assert torch.equal(nets["model"](rows()[0]), learner.predict(rows()[0]))


@pytest.mark.parametrize("optimiser", ["adagrad", "rmsprop"])
def test_squares_are_kept_over_experiences(optimiser: str) -> None:
    stage = methods.hard_ash(optimiser=optimiser, lr=1e-3)(plan(3))
    key = "sum" if optimiser == "adagrad" else "square_avg"
    once, twice = (part(learned(stage, times=n), Opt).save()["model.head.weight"] for n in (1, 2))
    assert float(once["step"]) == 3
    assert float(twice["step"]) == 6
    assert float(twice[key].sum()) > float(once[key].sum()) > 0


# --- the pairwise layer


def test_winners_by_hand() -> None:
    h = torch.tensor([[1.0, 5.0, 3.0, 2.0, 0.0, 4.0, -1.0, -2.0], [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0]])
    assert Winners(0.5)(h).tolist() == [[0, 3, 1, 0, 0, 2, 0, 0], [3, 2, 1, 0, 0, 0, 0, 0]]
    assert Winners(0.01)(h).tolist() == [[0, 2, 0, 0, 0, 1, 0, 0], [2, 1, 0, 0, 0, 0, 0, 0]]  # a pair is left
    assert torch.equal(Winners(0.5)(h.view(2, 2, 4)).flatten(1), Winners(0.5)(h))
    assert Winners(0.5)(h[:, :2]).tolist() == [[0, 4], [1, 0]]  # no more than there are


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(1, 4), st.integers(0, 60), st.integers(0, 1 << 20))
def test_pairwise_is_the_sum_over_its_pairs(features: int, outputs: int, more: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    layer = Pairwise(features, outputs, outputs + more, rng)
    a = torch.randn(3, features, generator=rng)
    i, j = layer.i.view(-1, outputs), layer.j.view(-1, outputs)
    by_hand = torch.stack([(layer.weight[:, c] * a[:, i[:, c]] * a[:, j[:, c]]).sum(1) for c in range(outputs)], 1)
    assert torch.allclose(layer(a), by_hand, atol=1e-6)
    assert bool((layer.i > layer.j).all())
    all_pairs, drawn = features * (features - 1) // 2, len(layer.i)
    assert drawn == min(outputs + more, all_pairs * outputs) // outputs * outputs
    often = torch.bincount(layer.i * features + layer.j)
    assert int((often > 0).sum()) == min(all_pairs, drawn)
    assert int(often.max()) == -(-drawn // all_pairs)


def test_pairs_without_two_features_or_a_product_each_are_refused() -> None:
    for features, m in ((1, 10), (5, 3)):
        with pytest.raises(BadInput, match="two features and a product an output"):
            Pairwise(features, 4, m, torch.Generator())
    with pytest.raises(BadInput, match="no linear head behind an activation"):
        learned(methods.pairwise_layer(m=8)(plan()), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)))


def test_s_mas_divides_by_the_root_of_importance() -> None:
    net = learned(methods.pairwise_layer(m=20)(plan(0))).model
    x, y = rows()
    out = net(x)
    weight = net.get_parameter("head.weight")
    matters = torch.autograd.grad(out.square().mean(), weight, retain_graph=True)[0].abs()
    g = torch.autograd.grad(nn.functional.cross_entropy(out, y), weight)[0]
    learner = learned(methods.pairwise_layer(m=20, lr=1e-3, lam=0.3)(plan()))
    after = learner.model.get_parameter("head.weight")
    assert torch.allclose(after, weight - 1e-3 * g / (0.3 * matters + FLOOR).sqrt(), atol=1e-7)
    assert torch.allclose(part(learner, SMAS).state["model.head.weight"], 0.3 * matters, atol=1e-8)


def test_s_mas_adds_up_over_experiences_and_reads_no_labels() -> None:
    x, y = rows()
    stage = methods.pairwise_layer(m=20, lr=1e-12)(plan())
    once, twice = (part(learned(stage, times=n), SMAS).state["model.head.weight"] for n in (1, 2))
    assert torch.allclose(twice, 2 * once, rtol=1e-3)
    assert torch.equal(part(learned(stage, data=(x, 3 - y)), SMAS).state["model.head.weight"], once)
    learner = Learner(mlp(), stage, "classification").learn(new={"x": x, "y": y, "id": torch.arange(12)})
    learner.forget([0])
    assert not part(learner, SMAS).state


def test_adagrad_is_the_cards() -> None:
    net = learned(methods.pairwise_layer(m=20, update="adagrad")(plan(0))).model
    x, y = rows()
    weight = net.get_parameter("hidden1.weight")
    g = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), weight)[0]
    after = learned(methods.pairwise_layer(m=20, update="adagrad", lr=1e-3)(plan())).model
    expected = weight - 1e-3 * g / (0.8 * g**2 + FLOOR).sqrt()
    assert torch.allclose(after.get_parameter("hidden1.weight"), expected, atol=1e-6)


# --- all of them


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_goes_on_an_edit_with_an_error(name: str) -> None:
    with pytest.raises(BadInput):
        getattr(methods, name)()(keep("a"))


@pytest.mark.parametrize("name", PIECES)
def test_the_same_seed_gives_the_same_bits_in_a_learner(name: str) -> None:
    stage = getattr(methods, name)()(plan(3))
    one, two = (learned(stage, times=2).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)
