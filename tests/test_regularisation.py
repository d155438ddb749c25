"""Weights held where earlier experiences left them: importance, the two forms of the pull, and what adds it up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small import flat, problem, rows
from torch import Tensor, nn

from oblivio import methods
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads
from oblivio.core.importance import fisher, importance
from oblivio.core.opt import adam, sgd
from oblivio.core.part import Part, walk
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Batch
from oblivio.core.where import Names
from oblivio.how import pull
from oblivio.methods.continual.regularisation.mas import Sensitivity, squared_norm
from oblivio.methods.continual.regularisation.si import path
from oblivio.modules.growing import grow_head
from oblivio.sources import Tensors
from oblivio.tasks.incremental import Incremental, Outputs
from oblivio.terms import Anchor, Fisher, Ones, fit, penalty

NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4, bias=False)),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)),
    "layer norm of a sequence": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.Linear(2, 5), nn.LayerNorm(5), nn.Flatten(), nn.Linear(15, 4)),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4)),
    "grown head": lambda: grown(),
    "no rule": lambda: nn.Sequential(nn.Linear(6, 5), nn.PReLU(), nn.Linear(5, 4)),
}  # fmt: skip


def grown() -> nn.Module:
    """A head of two outputs to which two were added, one by one."""
    nets = {"model": nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))}
    for seed in (0, 1):
        grow_head(nets, layer="2", by=1, seed=seed)
    return nets["model"]


METHODS: dict[str, dict[str, Any]] = {"ewc": {}, "online_ewc": {"gamma": 0.5}, "si": {}, "mas": {"decay": 0.5}}


def fresh(name: str = "mlp", n: int = 11, **given: Any) -> Problem:
    torch.manual_seed(0)
    return Problem(NETS[name](), **{"new": rows(n, 6), **given})


def learn(plan: Stage, of: Problem, turns: int = 1, seed: int = 0) -> list[Part]:
    """Turns of new rows each; the Parts of the plan."""
    for turn in range(turns):
        of.sources["new"] = of._named("new", Tensors(dict(zip("xy", rows(20, 6, seed=seed + turn), strict=True))))
        of.turn += 1
        Run(plan, of, fresh=False).go()
    return [part for _, part in walk(plan)]


def only(kind: type[Part], parts: list[Part]) -> Any:
    (found,) = [part for part in parts if isinstance(part, kind)]
    return found


def by_rows(of: Problem, value: Callable[[Tensor, Batch], Tensor], power: Callable[[Tensor], Tensor]) -> Grads:
    """The mean over rows, one at a time, summed over the columns of ``value``."""
    of.model.eval()
    source, weights = of.source("new"), of.weights()
    total = {n: torch.zeros_like(w) for n, w in weights.items()}
    for batch in source.batches(1):
        columns = value(of.task.forward(of.nets, "model", batch), batch).reshape(-1)
        for column in columns:
            grads = torch.autograd.grad(column, list(weights.values()), retain_graph=True, allow_unused=True)
            for n, g in zip(weights, grads, strict=True):
                total[n] += 0 if g is None else power(g) / len(source)
    return total


def close(got: Grads, want: Grads) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


# --- importance


def weighed(out: Tensor, batch: Batch) -> Tensor:
    likely = F.log_softmax(out, 1)
    return likely.exp().detach().sqrt() * likely


@pytest.mark.parametrize("name", NETS)
def test_the_exact_fisher_is_the_sum_over_classes_weighed_by_their_probability(name: str) -> None:
    of = fresh(name)
    close(Fisher("all")(of), by_rows(of, weighed, torch.square))


@pytest.mark.parametrize("name", NETS)
def test_the_sensitivity_is_the_mean_of_absolute_gradients_of_every_row(name: str) -> None:
    of = fresh(name)
    close(Sensitivity()(of), by_rows(of, lambda out, _: out.square().sum(1), torch.abs))


def test_the_sensitivity_takes_the_absolute_value_of_each_row() -> None:
    """Two rows whose gradients cancel: what sums over a batch first finds nothing."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    x = torch.tensor([[1.0], [-2.0]])
    of = Problem(net, task="regression", new=(x, torch.zeros(2, 1)))
    assert Sensitivity()(of)["model.weight"].item() == pytest.approx((2 * 1 + 2 * 4) / 2)

    def signed(problem: Problem, out: Tensor, batch: Batch) -> Tensor:
        return out.flatten()

    absolute = importance(of, "new", signed, power=torch.abs)["model.weight"]
    assert absolute.item() == pytest.approx(1.5)


@pytest.mark.parametrize("labels", ["true", "pred"])
def test_the_other_fishers_take_one_label(labels: Any) -> None:
    of = fresh()
    if labels == "true":
        close(Fisher("true")(of), fisher(of, "new"))
        close(Fisher("true", view="seen")(of), fisher(of, "new"))
    else:
        best = lambda out, _: F.log_softmax(out, 1)[0, out.argmax(1)]  # noqa: E731
        close(Fisher("pred")(of), by_rows(of, best, torch.square))


def test_the_sampled_fisher_has_the_exact_one_as_its_mean_and_repeats_its_bits() -> None:
    of = fresh(n=3)
    first, again = Fisher("sample")(of), Fisher("sample")(of)
    assert all(torch.equal(first[n], again[n]) for n in first)
    x, y = rows(3, 6)
    many = fresh(new=(x.repeat(4000, 1), y.repeat(4000)))
    got, want = flat(Fisher("sample")(many)), flat(Fisher("all")(of))
    assert float((got - want).abs().max() / want.max()) < 0.04


def test_outputs_that_do_not_count_have_no_importance() -> None:
    outputs = Outputs("class")
    outputs.begin({0: (0, 2)})
    x, y = rows(11, 6)
    of = fresh(task=Incremental(outputs), new=(x, y // 2 * 2))
    for measure in (Fisher("all"), Fisher("true"), Fisher("sample"), Sensitivity()):
        found = measure(of)["model.2.weight"]
        assert found[[1, 3]].abs().sum() == 0
        assert bool((found[[0, 2]].sum(1) > 0).all())


def test_the_fisher_of_a_local_loss_is_over_the_classes_of_the_experience() -> None:
    outputs = Outputs("class")
    outputs.begin({0: (0, 2)})
    outputs.begin({1: (1, 3)})
    x, y = rows(11, 6)
    of = fresh(task=Incremental(outputs), new=(x, y // 2 * 2 + 1))
    now = torch.tensor([1, 3])
    close(Fisher("all", view="current")(of), by_rows(of, lambda out, b: weighed(out[:, now], b), torch.square))
    own = lambda out, b: F.cross_entropy(out[:, now], b["y"] // 2, reduction="none")  # noqa: E731
    close(Fisher("true", view="current")(of), by_rows(of, own, torch.square))


def test_labels_do_not_enter_the_sensitivity() -> None:
    x, y = rows(11, 6)
    one, other = fresh(new=(x, y)), fresh(new=(x, y.flip(0)))
    assert all(torch.equal(v, Sensitivity()(other)[n]) for n, v in Sensitivity()(one).items())
    assert not torch.equal(flat(Fisher("true")(one)), flat(Fisher("true")(other)))


def test_normalised_importance_has_mean_one() -> None:
    found = flat(Fisher("all", normalise=True)(fresh()))
    assert float(found.mean()) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(found / found.max(), flat(Fisher("all")(fresh())) / flat(Fisher("all")(fresh())).max())


@pytest.mark.parametrize("labels", ["all", "sample", "pred"])
def test_classes_are_asked_of_a_task_that_has_them(labels: Any) -> None:
    of = Problem(nn.Linear(6, 2), task="regression", new=(rows(5, 6)[0], torch.zeros(5, 2)))
    with pytest.raises(BadInput, match="use fisher='true'"):
        Fisher(labels)(of)
    assert all(bool((v > 0).any()) for v in Fisher("true")(of).values())


def test_a_column_costs_no_forward() -> None:
    of = fresh()
    Fisher("true")(of)
    assert of.work == {"forward": 11, "backward": 11}
    Fisher("all")(of)
    assert of.work == {"forward": 22, "backward": 55}
    assert squared_norm(of, torch.ones(2, 3), of.source("new").batch(torch.arange(2))).tolist() == [3, 3]


# --- the anchor


def single() -> Problem:
    return Problem(nn.Linear(1, 1, bias=False), task="regression", new=(torch.ones(1, 1), torch.ones(1, 1)))


def at(of: Problem, value: float) -> None:
    for weight in of.weights().values():
        weight.data.fill_(value)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(-3, 3)), min_size=1, max_size=5))
def test_two_tensors_hold_the_sum_of_all_penalties(springs: list[tuple[float, float]]) -> None:
    """The gradient of sum_k F_k (theta - theta_k)^2 / 2 at any theta, and no more state for more experiences."""
    of, anchor = single(), Anchor(None)
    for importance_, place in springs:
        at(of, place)
        anchor.add(of, {"model.weight": torch.tensor([[importance_]])})
    for theta in (-1.0, 0.5, 2.0):
        want = sum(f * (theta - c) for f, c in springs)
        got = anchor.slope({"model.weight": torch.tensor([[theta]])})["model.weight"].item()
        assert got == pytest.approx(want, abs=1e-3)
    assert {k: len(v) for k, v in anchor.state.items()} == {"importance": 1, "weights": 1}


def test_what_mattered_to_no_experience_is_free() -> None:
    of, anchor = problem(), Anchor(lambda p: {n: torch.zeros_like(w) for n, w in p.weights().items()})
    for _ in range(3):
        anchor.consolidate(of)
    assert all(bool(torch.isfinite(v).all()) for v in anchor.state["weights"].values())
    assert float(flat(anchor.slope(dict(of.weights()))).detach().abs().max()) == 0


def test_a_weight_that_an_experience_did_not_use_keeps_its_importance() -> None:
    of, anchor = fresh(), Anchor(None)
    first = {n: torch.ones_like(w, requires_grad=False) for n, w in of.weights().items()}
    anchor.add(of, first)
    anchor.add(of, {"model.0.bias": torch.ones(5)})
    assert anchor.state["importance"].keys() == first.keys()
    assert {n: float(v.mean()) for n, v in anchor.state["importance"].items()} == {
        n: 2.0 if n == "model.0.bias" else 1.0 for n in first
    }


@pytest.mark.parametrize(("average", "want"), [(False, 0.5 * 4 + 2), (True, 0.5 * 4 + 0.5 * 2)])
def test_the_online_form_decays_importance_and_keeps_the_latest_weights(average: bool, want: float) -> None:
    of, anchor = single(), Anchor(None, 0.5, latest=True, average=average)
    for importance_, place in ((4.0, 1.0), (2.0, -1.0)):
        at(of, place)
        anchor.add(of, {"model.weight": torch.tensor([[importance_]])})
    assert anchor.state["importance"]["model.weight"].item() == want
    assert anchor.state["weights"]["model.weight"].item() == -1


def anchored(of: Problem, latest: bool = False) -> Anchor:
    """Importance and places drawn at random, and then the weights moved away."""
    anchor, g = Anchor(None, latest=latest), torch.Generator().manual_seed(3)
    anchor.add(of, {n: torch.rand(w.shape, generator=g) for n, w in of.weights().items()})
    with torch.no_grad():
        for weight in of.weights().values():
            weight += torch.randn(weight.shape, generator=g)
    return anchor


def test_the_gradient_of_the_penalty_is_that_of_finite_differences() -> None:
    of = fresh()
    of.nets.double()
    anchor = anchored(of)
    term = penalty(anchor, 3.0)
    grads = of.gradient(term)

    def value() -> float:
        springs = anchor.springs({n: w.detach() for n, w in of.weights().items()})
        return sum(float((1.5 * a * (of.weights()[n].detach() - c).square()).sum()) for n, a, c in springs)

    for name, weight in of.weights().items():
        for i in range(0, weight.numel(), 7):
            entry = weight.data.view(-1)
            here = float(entry[i])
            entry[i] = here + 1e-4
            up = value()
            entry[i] = here - 1e-4
            down = value()
            entry[i] = here
            assert float(grads[name].view(-1)[i]) == pytest.approx((up - down) / 2e-4, rel=1e-4, abs=1e-7)
    close({n: 3 * v.detach() for n, v in anchor.slope(dict(of.weights())).items()}, grads)


def test_the_penalty_counts_once_however_a_batch_is_split() -> None:
    of = fresh()
    anchor = anchored(of)
    whole, pieces = of.copy(), of.copy()
    for chunk, each in ((None, whole), (3, pieces)):
        plan = Descent(fit("new") + penalty(anchor, 2.0), opt=sgd(0.1), steps=1, batch=11, chunk=chunk)
        Run(copy.deepcopy(plan), each, fresh=False).go()
    close(dict(whole.weights()), dict(pieces.weights()))


# --- the pull


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("strength", [0.5, 1e8])
def test_the_pull_ends_at_the_optimum_in_closed_form(strength: float, momentum: float) -> None:
    """min (theta - 2)^2 / 2 + strength / 2 a (theta - c)^2 is at (2 + strength a c) / (1 + strength a)."""
    net = nn.Linear(1, 1, bias=False)
    of = Problem(net, task="regression", new=(torch.ones(1, 1), torch.full((1, 1), 2.0)))
    anchor = Anchor(None)
    net.weight.data.fill_(-1.0)
    anchor.add(of, {"model.weight": torch.tensor([[0.5]])})
    slope = 2 * (1 if of.gradient(fit("new"))["model.weight"].item() == pytest.approx(-6) else 0.5)
    Run(Descent(fit("new"), how=pull(anchor, strength), opt=sgd(0.05, momentum), steps=400), of, fresh=False).go()
    want = (slope * 2 + strength * 0.5 * -1) / (slope + strength * 0.5)
    assert net.weight.item() == pytest.approx(want, abs=0.02 if momentum else 0.01)


def test_a_step_is_the_proximal_one() -> None:
    of = fresh()
    anchor = anchored(of)
    before = {n: w.detach().clone() for n, w in of.weights().items()}
    grads = of.gradient(fit("new"))
    Run(Descent(fit("new"), how=pull(anchor, 4.0), opt=sgd(0.1), steps=1, batch=None), of, fresh=False).go()
    for name, weight in of.weights().items():
        a, c = anchor.of(name, weight)  # type: ignore[misc]
        want = (before[name] - 0.1 * grads[name] + 0.1 * 4 * a * c) / (1 + 0.1 * 4 * a)
        torch.testing.assert_close(weight.data, want, rtol=1e-4, atol=1e-6)


def test_for_small_strength_both_forms_agree() -> None:
    ends = []
    for form in ("proximal", "explicit"):
        of = fresh()
        learn(methods.ewc(lam=0.5, form=form, lr=1e-3, epochs=2, batch=5), of, turns=3)
        ends.append(flat(dict(of.weights())).detach())
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)


def test_the_pull_follows_the_schedule_and_the_mask() -> None:
    of = fresh()
    anchor = anchored(of)
    half = {n: torch.zeros_like(w) for n, w in of.weights().items()}
    half["model.0.weight"][0] = 1
    before = of.weights()["model.0.weight"].detach().clone()

    class first_row(Names):
        def select(self, problem: Problem) -> Any:
            return {"model.0.weight": half["model.0.weight"]}

    still = sgd(0.1, schedule=lambda step: float(step.t > 0))
    for steps, moved in ((1, False), (2, True)):
        Run(Descent(0.0 * fit("new"), first_row("*"), pull(anchor, 1.0), still, steps=steps), of, fresh=False).go()
        weight = of.weights()["model.0.weight"].detach()
        assert torch.equal(weight[0], before[0]) is not moved
        assert torch.equal(weight[1:], before[1:])


def test_the_first_experience_is_plain_training() -> None:
    for name in METHODS:
        of, plain = fresh(), fresh()
        learn(getattr(methods, name)(epochs=1, batch=5, lr=0.05), of)
        learn(Descent(fit("new"), opt=sgd(0.05), epochs=1, batch=5), plain)
        assert torch.equal(flat(dict(of.weights())), flat(dict(plain.weights()))), name


# --- the methods


def test_ewc_and_its_online_form_agree_to_the_bit_through_the_second_experience_and_part_in_the_third() -> None:
    for turns, alike in ((2, True), (3, False)):
        ends = []
        for plan in (methods.ewc(epochs=1, batch=5), methods.online_ewc(epochs=1, batch=5)):
            of = fresh()
            learn(plan, of, turns)
            ends.append(flat(dict(of.weights())).detach())
        assert torch.equal(*ends) is alike


@pytest.mark.parametrize("name", METHODS)
def test_memory_does_not_grow_with_the_experiences(name: str) -> None:
    of, plan = fresh(), getattr(methods, name)(epochs=1, batch=5, **METHODS[name])
    sizes = []
    for seed in range(4):
        parts = learn(plan, of, seed=seed)
        sizes.append(sum(v.numel() for p in parts for held in p.state.values() if isinstance(held, dict)
                         for v in held.values() if isinstance(v, Tensor)))  # fmt: skip
    assert sizes[0] > 0
    assert set(sizes) == {sizes[0]}


@pytest.mark.parametrize("form", ["proximal", "explicit"])
@pytest.mark.parametrize("gradient", ["task", "total"])
def test_the_path_integral_is_the_decrease_of_the_loss(form: Any, gradient: Any) -> None:
    """By plain descent of a tiny rate on all rows, in the second experience, whose loss is that of ``gradient``."""
    of = fresh(n=20)
    plan = methods.si(c=3.0, xi=1e-3, lr=1e-2, epochs=50, batch=20, form=form, gradient=gradient)
    parts = learn(plan, of)
    anchor = only(Anchor, parts)
    held = copy.deepcopy(anchor)

    @torch.no_grad()
    def total() -> float:
        new = float(of.task.each(of.model(x), {"y": y}).mean())  # type: ignore[arg-type]
        springs = held.springs({n: w.detach() for n, w in of.weights().items()})
        return new + (3.0 * sum(float((a * (of.weights()[n] - c).square()).sum()) for n, a, c in springs)
                      if gradient == "total" else 0)  # fmt: skip

    x, y = rows(20, 6, seed=7)
    before = total()
    part: path = only(path, learn(plan, of, seed=7))
    assert sum(float(v.sum()) for v in part.state["work"].values()) == pytest.approx(before - total(), rel=0.05)


def test_importance_of_the_path_is_made_of_real_moves() -> None:
    """With Adam the change is not the rate times the gradient."""
    of = fresh(n=20)
    anchor = Anchor(None, latest=True)
    start = {n: w.detach().clone() for n, w in of.weights().items()}
    plan = Descent(fit("new"), how=path(anchor, 0.1), opt=adam(0.01), over="new", steps=1, batch=None)
    slope = of.gradient(fit("new"))
    learn(plan, of)
    for name, omega in anchor.state["importance"].items():
        move = of.weights()[name].detach() - start[name]
        torch.testing.assert_close(omega, slope[name].abs() * move.abs() / (move.square() + 0.1), rtol=1e-3, atol=1e-6)


def test_importance_of_the_path_is_never_negative() -> None:
    of, anchor = single(), Anchor(None, latest=True)
    part, name = path(anchor, 0.1), "model.weight"
    for slope, want in ((-2.0, 2 * 0.5 / (0.5**2 + 0.1)), (2.0, 0.0)):  # a move of 0.5 downhill, and one uphill
        anchor.state.clear()
        at(of, 0.5)
        part.prepare(of)
        part.after(
            SimpleNamespace(
                was={name: torch.zeros(1, 1)}, weights=of.weights(), grads={name: torch.full((1, 1), slope)}
            )
        )  # type: ignore[arg-type]
        part.consolidate(of)
        assert anchor.state["importance"][name].item() == pytest.approx(want)


@pytest.mark.parametrize("name", METHODS)
def test_old_rows_are_kept_better_than_without(name: str) -> None:
    """Strong holding: the second experience cannot move what mattered; and at no strength nothing is held."""
    strong = {"c": 1e6} if name == "si" else {"lam": 1e6}
    moves = []
    for settings in (strong, dict.fromkeys(strong, 1e-09)):
        of = fresh()
        plan = getattr(methods, name)(epochs=4, batch=5, lr=0.05, **settings)
        learn(plan, of)
        before = flat(dict(of.weights())).detach().clone()
        learn(plan, of, seed=5)
        moves.append(float((flat(dict(of.weights())).detach() - before).norm()))
    assert moves[0] < 0.2 * moves[1]


@pytest.mark.parametrize(("name", "settings"), [
    ("ewc", {"lam": 0}), ("ewc", {"fisher": "batch"}), ("online_ewc", {"gamma": 1.5}), ("si", {"xi": 0}),
    ("si", {"gradient": "both"}), ("mas", {"decay": 2}), ("mas", {"form": "soft"}),
])  # fmt: skip
def test_settings_are_checked(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(settings))):
        getattr(methods, name)(**settings)


def test_plain_l2_holds_the_weights_it_is_given() -> None:
    of = fresh()
    anchor = Anchor(Ones("model.0.*"), latest=True)
    anchor.consolidate(of)
    assert set(anchor.state["importance"]) == {"model.0.weight", "model.0.bias"}
    assert all(bool((v == 1).all()) for v in anchor.state["importance"].values())
