"""UER and OnPro, and the pieces that change how a replay plan steps, weighs, repairs or draws."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small import flat, mlp, rows, same, state, step
from torch import Tensor, nn

from oblivio import methods, terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.importance import importance
from oblivio.core.opt import sgd
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.surgery import replay
from oblivio.learners import Learner
from oblivio.methods.continual.replay import onpro, uer
from oblivio.methods.pieces import fpf, rer, view_batch
from oblivio.methods.pieces.refresh_learning import Refresh, recognised
from oblivio.modules.growing import grow_head
from oblivio.modules.unbiased import drop_bias
from oblivio.sources import Buffer, Exemplars, Joined, Memory, as_source
from oblivio.sources.views import ViewBatches

HYPER = settings(max_examples=25, deadline=None)


def new(n: int = 20, seed: int = 0, **columns: Tensor) -> Problem:
    torch.manual_seed(0)
    x, y = rows(n, 6, seed=seed)
    return Problem(mlp(), new={"x": x, "y": y, **columns}, task="classification")


def learner(plan: Stage, turns: int = 2, n: int = 20, model: nn.Module | None = None) -> Learner:
    torch.manual_seed(0)
    made = Learner(model or mlp(), plan, "classification")
    for turn in range(turns):
        made.learn(new=rows(n, 6, seed=turn))
    return made


def memory(of: Learner) -> Memory:
    return next(p for p in of.parts.values() if isinstance(p, Memory))


def er(**given: Any) -> Stage:
    return methods.er(**{"buffer": 8, "batch": 5, "replay": 4, "epochs": 2, **given})


# --- uer


def test_the_bias_goes_and_what_is_grown_has_none() -> None:
    of, nets = new(), {"model": mlp()}
    for _ in range(2):
        uer.without_bias().visit(of, None)  # type: ignore[arg-type]
    assert [entry["op"].partition(":")[2] for entry in of.journal] == ["drop_bias"]
    of.operate(grow_head, layer="2", by=2, seed=0)
    assert [n for n, _ in of.model.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.weights.0"]
    replay(nets, of.journal)
    assert nets["model"].state_dict().keys() == of.model.state_dict().keys()


def test_a_grown_head_loses_all_its_biases() -> None:
    of = new()
    of.operate(grow_head, layer="2", by=2, seed=0)
    of.operate(drop_bias, layer="2")
    x, head = torch.randn(3, 5), of.model.get_submodule("2")
    assert torch.equal(head(x), x @ uer.rows(head).T)  # type: ignore[arg-type]
    assert not [n for n, _ in of.model.named_parameters() if n.startswith("2.bias")]


def test_the_angular_loss_is_cross_entropy_of_scaled_cosines() -> None:
    of = Problem(nn.Sequential(nn.Identity(), nn.Linear(2, 2, bias=False)), new=(torch.tensor([[3.0, 4.0]]), [1]))
    of.model.get_submodule("1").weight.data = torch.tensor([[2.0, 0.0], [0.0, 0.5]])  # type: ignore[union-attr]
    got = uer.angular("new", 10.0)(step(of, taps=("model.1",)))
    assert got.item() == pytest.approx(math.log(1 + math.exp(10 * (0.6 - 0.8))), rel=1e-5)


@HYPER
@given(st.integers(0, 1000), st.floats(0.5, 20))
def test_its_gradient_leaves_every_length_alone(seed: int, scale: float) -> None:
    of = new(seed=seed)
    uer.without_bias().visit(of, None)  # type: ignore[arg-type]
    g = uer.angular("new", scale).grad(step(of, taps=(of.features,)))["model.2.weight"]
    assert (g * of.weights()["model.2.weight"]).sum(1).abs().max() < 1e-4 * scale


def test_uer_serves_dot_products() -> None:
    done = learner(methods.uer(buffer=8))
    x = rows(4, 6)[0]
    z = done.model[:2](x)  # type: ignore[index]
    assert torch.equal(done.predict(x), z @ done.model.get_submodule("2").weight.T)  # type: ignore[union-attr,operator]


def test_uer_needs_a_linear_head() -> None:
    with pytest.raises(BadInput, match="no linear layer"):
        learner(methods.uer(), model=nn.Sequential(nn.Conv1d(1, 1, 1)))


# --- refresh_learning


def refreshed(delta: float = 0.1, noise: float = 0.0, damping: float = 0.0) -> Refresh:
    return Refresh("new", delta, noise, damping, tau=0.5)


def test_every_tensor_moves_by_delta_times_its_length_up_the_loss() -> None:
    of, how = new(), refreshed()
    before, g = state(of), of.gradient(terms.fit("new"))
    how.before(step(of))
    for name, moved in {n: w - before[n] for n, w in state(of).items()}.items():
        assert torch.allclose(moved, 0.1 * before[name].norm() * g[name] / g[name].norm(), atol=1e-6)


def test_importance_shortens_the_step_and_is_a_running_sum() -> None:
    of, how = new(), refreshed(damping=2.0)
    how.consolidate(of)
    once = {n: v.clone() for n, v in how.state.items()}
    how.consolidate(of)
    assert all(torch.allclose(how.state[n], 1.5 * v) for n, v in once.items())
    plain, damped = new(), new()
    refreshed().before(step(plain))
    how.before(step(damped))
    start = state(new())
    for name in start:
        expected = (state(plain)[name] - start[name]) / (1 + 2 * how.state[name])
        assert torch.allclose(state(damped)[name] - start[name], expected, atol=1e-6)


def test_importance_weighs_each_squared_gradient_by_the_label_s_probability() -> None:
    of = new(n=3)
    expected = {n: torch.zeros_like(w) for n, w in of.weights().items()}
    for i in range(3):
        one = Problem(of.model, new=of.source("new").take([i]), task="classification")
        loss = terms.fit("new")(step(one)).item()
        for n, g in one.gradient(terms.fit("new")).items():
            expected[n] += math.exp(-loss) * g.square() / 3
    got = importance(of, "new", recognised)
    assert torch.allclose(flat(got), flat(expected), atol=1e-6)


@pytest.mark.parametrize("plan", [er, methods.der_pp], ids=["er", "der_pp"])
def test_a_delta_of_zero_changes_no_bit(plan: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 4))
    base = plan(buffer=8, batch=5, replay=4, epochs=2)
    plain = learner(base, model=copy.deepcopy(model)).problem
    assert same(state(learner(methods.refresh_learning(delta=0)(base), model=model).problem), state(plain))
    assert not same(state(learner(methods.refresh_learning(delta=1e-2)(base)).problem), state(learner(base).problem))


def test_the_step_up_moves_no_statistics() -> None:
    torch.manual_seed(0)
    of = Problem(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)), new=rows(20, 6))
    before = state(of)
    refreshed().before(step(of, moves=("new",), train=True))
    moved = [n for n, v in state(of).items() if not torch.equal(v, before[n])]
    assert [n for n in moved if "running" in n or "batches" in n] == []
    assert "model.0.weight" in moved


def test_refresh_goes_on_plans_that_learn() -> None:
    with pytest.raises(BadInput, match="refresh_learning follows what is learned"):
        methods.refresh_learning()(Descent(terms.fit("forget"), steps=1))


# --- rer


def test_the_weigher_is_the_card_s_formula() -> None:
    net = rer.Weigher(2, 3)
    losses, lengths = torch.rand(4, 2), torch.rand(4, 2)
    a, b, c = net.losses, net.lengths, net.weights
    hidden = (losses @ a.weight.T + a.bias).clamp(min=0) + (lengths @ b.weight.T + b.bias).clamp(min=0)
    assert torch.allclose(net(losses, lengths), torch.sigmoid(hidden @ c.weight.T + c.bias))


def weighed(**sources: Any) -> tuple[Problem, Any]:
    torch.manual_seed(0)
    of = Problem(mlp().double(), task="classification", new=_double(6, 0), replay=_double(6, 1), **sources)
    rer.add_weigher(2, 4).visit(of, None)  # type: ignore[arg-type]
    of.nets["weigher"].double()
    return of, rer.related([terms.fit("new"), terms.fit("replay")])


def _double(n: int, seed: int) -> Any:
    x, y = rows(n, 6, seed=seed)
    source = as_source((x, y))
    source.data["x"] = x.double()  # type: ignore[attr-defined]
    source.read = lambda name, at, into: into.__setitem__(name, source.data[name][at])  # type: ignore[method-assign,attr-defined]
    return source


def test_the_gradient_through_the_virtual_step_equals_finite_differences() -> None:
    of, inner = weighed()
    ahead = rer.lookahead(inner, terms.fit("replay"), lr=0.3)
    at = step(of, "weigher.*")
    g = ahead.grad(at)
    weight = of.weights("weigher.*")["weigher.weights.weight"]
    for place in [(0, 0), (1, 2)]:
        values = []
        for by in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += by
            values.append(ahead(step(of, "weigher.*").full()).item())
            with torch.no_grad():
                weight[place] -= by
        assert float(g["weigher.weights.weight"][place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


def test_weighted_pairs_by_place_where_one_batch_is_shorter() -> None:
    of, inner = weighed()
    of.sources["replay"] = of.source("replay").take([0, 1])
    at = step(of)
    losses = [of.task.each(at.out(on), at.batch(on)).detach() for on in ("new", "replay")]
    lengths = [at.out(on).norm(dim=1).detach() for on in ("new", "replay")]
    place = torch.arange(6) % 2
    w = of.nets["weigher"](*(torch.stack([a, b[place]], 1) for a, b in (losses, lengths)))
    expected = (w[:, 0] * losses[0] + w[:, 1] * losses[1][place]).mean()
    assert inner(at).item() == pytest.approx(float(expected.detach()))


def test_its_weights_count_in_the_second_half_of_later_experiences() -> None:
    used: list[list[bool]] = []
    learnt = []

    def watch(run: Run, stage: Any, at: Any) -> None:
        if isinstance(stage, Descent) and "weigher" not in repr(stage.where):
            used[-1].append([c(at) for c, t in stage.loss.summands if isinstance(t, rer.related)] == [1.0])
            learnt.append([c(at) for c, t in stage.loss.summands if not isinstance(t, rer.related)])

    one = Learner(mlp(), methods.rer(every=2)(er(epochs=4, beta=0.5)), "classification")
    for turn in range(2):
        used.append([])
        one.learn(new=rows(20, 6, seed=turn), watch=[watch])
    assert used == [[False] * 16, [False] * 8 + [True] * 8]
    assert learnt[0] == [1.0, 0.5]
    assert learnt[-1] == [0.0, 0.0]


def test_the_weigher_learns_from_the_second_experience_on_and_is_added_once() -> None:
    plan = methods.rer(every=2)(er())
    first, second = learner(plan, turns=1), learner(plan, turns=2)
    start = dict(first.problem.nets["weigher"].named_parameters())
    assert [e["op"].partition(":")[2] for e in second.problem.journal] == ["weigher"]
    assert all(not torch.equal(w, start[n]) for n, w in second.problem.nets["weigher"].named_parameters())


def test_a_step_ahead_asks_a_fresh_draw_of_all_that_is_stored() -> None:
    plan = methods.rer()(methods.der_pp(buffer=8))
    ahead = next(p for _, p in walk(plan) if isinstance(p, rer.lookahead))
    assert {on.name for on in ahead.outer.reads} == {"replay_fresh"}  # type: ignore[union-attr]
    assert [t.fn.__name__ for _, t in ahead.outer.summands] == ["match", "fit"]  # type: ignore[attr-defined]


def test_rer_goes_on_replay_with_epochs() -> None:
    with pytest.raises(BadInput, match="reads no stored ones"):
        methods.rer()(methods.naive())
    with pytest.raises(BadInput, match="number of epochs"):
        methods.rer()(Descent(terms.fit("new") + terms.fit(Buffer(3)), steps=5))


# --- fpf


def test_a_repair_moves_the_head_and_the_norms_alone() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))
    short, long = (
        state(learner(methods.fpf(steps=n, buffer=9)(methods.naive(batch=5)), turns=1, model=model).problem)
        for n in (1, 6)
    )
    moved = [n for n, v in long.items() if not torch.equal(v, short[n])]
    assert moved == [f"model.{n}" for n in (
        "1.weight", "1.bias", "3.weight", "3.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
    )]  # fmt: skip


def test_the_repair_is_taken_back_when_the_next_experience_begins() -> None:
    none, done = (learner(methods.fpf(steps=5, lr=lr)(er())) for lr in (1e-30, 0.1))  # the first repairs nothing
    plain, repaired = state(none.problem), state(done.problem)
    before = next(p for p in done.parts.values() if isinstance(p, fpf.Undone)).state["before"]
    assert before.keys() == {"model.2.weight", "model.2.bias"}
    assert all(torch.equal(plain[n], v) and not torch.equal(repaired[n], v) for n, v in before.items())
    assert all(torch.equal(plain[n], repaired[n]) for n in plain if n not in before)


def test_what_was_done_since_the_repair_stays() -> None:
    of, undone, head = new(), fpf.Undone(), fpf.MODULES["head"]
    undone.note(of, "before", head)
    start = state(of)
    with torch.no_grad():
        for by, when in ((2.0, "after"), (0.5, None)):
            for name in ("model.2.weight", "model.2.bias"):
                of.weights()[name].add_(by)
            if when:
                undone.note(of, when, head)
        undone.take_back(of)
    assert torch.allclose(state(of)["model.2.weight"], start["model.2.weight"] + 0.5, atol=1e-6)
    assert undone.state == {}


def test_k_repairs_share_the_epochs_and_stay() -> None:
    steps: Counter[str] = Counter()
    plan = methods.fpf(k=2, steps=3, buffer=9)(methods.naive(batch=5, epochs=4))
    torch.manual_seed(0)
    Learner(mlp(), plan, "classification").learn(
        new=rows(20, 6), watch=[lambda run, stage, at: steps.update([stage.place])]
    )
    assert sorted(steps.values()) == [6, 16]


def test_repairs_draw_classes_equally() -> None:
    held = Buffer(100)
    of = Problem(mlp(), new=(torch.randn(100, 6), torch.tensor([0] * 90 + [1] * 10)), task="classification")
    held.offer(of.source("new").batch(torch.arange(100)), seed=0)
    drawn = fpf.Balanced(held).draw(4000, step(of))["y"]
    assert abs(float(drawn.float().mean()) - 0.5) < 0.03


def test_repair_uses_what_is_stored_and_its_outputs() -> None:
    done = learner(methods.fpf(steps=2, kd=0.5)(er()))
    assert len([p for p in done.parts.values() if isinstance(p, Memory)]) == 1
    assert "z" in memory(done).columns
    with pytest.raises(BadInput, match="does not end in one with epochs"):
        methods.fpf(k=2)(methods.fpf()(er()))


# --- view_batch


@HYPER
@given(n=st.integers(2, 40), R=st.integers(1, 5), size=st.integers(5, 16), seed=st.integers(0, 99))
def test_in_r_epochs_every_row_comes_r_times_in_one_batch(n: int, R: int, size: int, seed: int) -> None:
    of = Problem(nn.Linear(1, 2), new=(torch.arange(n).float()[:, None], [0] * n), seed=seed, task="classification")
    source = ViewBatches("new", R).within(of)
    at = step(of)
    seen: list[list[int]] = []
    for t in range(R * -(-n // size)):
        at.at_time(t)
        seen.append(source.draw(size, at).rows.tolist())
    assert all(len(b) <= size + R - 1 and set(Counter(b).values()) <= {R} for b in seen)
    assert Counter(r for b in seen for r in set(b)) == Counter(range(n))


def test_rounds_have_orders_of_their_own_and_a_clock_is_all_it_needs() -> None:
    of = new(12)
    source, at = ViewBatches("new", 2).within(of), step(of)

    def drawn(t: int) -> list[int]:
        at.at_time(t)
        return source.draw(4, at).rows.tolist()

    assert drawn(0) == drawn(0) != drawn(6)


def test_views_agree_by_row_with_the_first_held_fixed() -> None:
    of = Problem(nn.Linear(3, 3, bias=False), new=(torch.eye(3), [0, 1, 2]), task="classification")
    of.model.weight.data = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]]).log().T.contiguous()
    source = as_source({"x": torch.eye(3), "y": torch.arange(3)}, "new")
    at = step(of)
    at._batches["new"] = source.batch(torch.tensor([0, 1, 0])).but(x=torch.eye(3))
    first, other = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.1, 0.1, 0.8])
    term = view_batch.agree("new")
    assert term(at).item() == pytest.approx(float((first * (first / other).log()).sum()), rel=1e-5)
    at._batches["new"] = source.batch(torch.arange(3))
    assert term(at).item() == 0
    moved = torch.autograd.grad(term(_with(at, [0, 1, 0])), at.weights.values())[0]
    assert moved[:, 0].abs().max() == 0
    assert moved[:, 2].abs().max() > 0


def _with(at: Any, places: list[int]) -> Any:
    source = as_source({"x": torch.eye(3), "y": torch.arange(3)}, "new")
    other = step(at.problem)
    other._batches["new"] = source.batch(torch.tensor(places)).but(x=torch.eye(3))
    at.weights = other.weights
    return other


def test_further_views_alone_get_noise_and_the_store_holds_rows_as_they_are() -> None:
    x, rng = torch.rand(4, 1, 5, 5), torch.Generator().manual_seed(0)
    first = torch.tensor([True, False, True, False])
    made = view_batch.Augmented(0, 0.5)(x, first, rng)
    assert torch.equal(made[first], x[first])
    assert not torch.equal(made[~first], x[~first])
    done = learner(methods.view_batch(R=2, noise=0.5)(er(epochs=2)))
    given = torch.cat([rows(20, 6, seed=t)[0] for t in range(2)])
    held = memory(done)
    assert all(any(torch.equal(row, g) for g in given) for row in held.batch(torch.arange(len(held)))["x"])


def test_stored_rows_that_are_joined_with_new_ones_come_in_views_too() -> None:
    both = Joined("new", Exemplars(6, by="y"))
    plan = methods.view_batch(R=2, shift=0)(Descent(terms.fit(both), over=both, epochs=2, batch=4, opt=sgd(0.1)))
    seen: list[list[int]] = []

    def watch(run: Run, stage: Any, at: Any) -> None:
        seen.append(at._batches["new+replay"].rows.tolist())

    one = Learner(mlp(), plan, "classification")
    for turn in range(2):
        seen.clear()
        one.learn(new=rows(10, 6, seed=turn), watch=[watch])
    held = len(memory(one))
    assert Counter(r for batch in seen for r in batch) == Counter(dict.fromkeys(range(10 + held), 2))
    assert all(a == b for batch in seen for a, b in zip(batch[::2], batch[1::2], strict=True))


def test_views_need_epochs_and_a_batch_that_hold_them() -> None:
    with pytest.raises(BadInput, match="give it 4 or more"):
        methods.view_batch(R=4)(er(epochs=1))
    with pytest.raises(BadInput, match="shows views of new rows"):
        methods.view_batch()(methods.finetune())
    with pytest.raises(BadInput, match="cannot hold 4 views"):
        learner(methods.view_batch(R=4)(er(batch=3, epochs=4)))


# --- onpro


def test_equilibrium_is_infonce_over_the_prototypes_of_two_views() -> None:
    means = torch.randn(2, 3, 4)
    p = F.normalize(means, dim=2).reshape(6, 4)
    total = 0.0
    for i in range(6):
        scores = {j: math.exp(float(p[i] @ p[j]) / 0.5) for j in range(6) if j != i}
        total -= math.log(scores[(i + 3) % 6] / sum(scores.values())) / 6
    assert float(onpro.equilibrium(means, 0.5)) == pytest.approx(total, rel=1e-4)
    assert float(onpro.equilibrium(means[:, :1], 0.5)) == pytest.approx(0, abs=1e-6)


def test_contrast_is_the_supervised_form() -> None:
    z, label = F.normalize(torch.randn(4, 3), dim=1), torch.tensor([0, 0, 1, 1])
    total = 0.0
    for i, positive in enumerate([1, 0, 3, 2]):
        total -= math.log(math.exp(float(z[i] @ z[positive]) / 0.1)
                          / sum(math.exp(float(z[i] @ z[j]) / 0.1) for j in range(4) if j != i)) / 4  # fmt: skip
    assert float(onpro.contrast(z, label, 0.1)) == pytest.approx(total, rel=1e-4)


def test_prototypes_are_means_by_class() -> None:
    z, y = torch.randn(2, 4, 3), torch.tensor([5, 2, 5, 2])
    classes, means = onpro.prototypes(z, y)
    assert classes.tolist() == [2, 5]
    assert torch.allclose(means[:, 1], z[:, [0, 2]].mean(1))


def test_the_closest_pair_is_drawn_most_and_coinciding_prototypes_do_not_break_it() -> None:
    means = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 2.0]])
    both, counts = onpro.pairs(means, 20)
    d = torch.tensor([0.5, 2.0, (0.25 + 4.0) ** 0.5])
    assert both.T.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert counts.tolist() == ((1 / d).softmax(0) * 20).round().tolist() == [14, 3, 3]
    assert onpro.pairs(torch.zeros(3, 2), 9)[1].tolist() == [3, 3, 3]


def images(n: int, seed: int, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 4, 4, generator=g), torch.tensor(classes)[torch.arange(n) % len(classes)]


def test_mixed_rows_are_what_their_columns_say_and_pairs_are_of_two_classes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 4))
    one = Learner(net, methods.onpro(buffer=12, replay=8, p=1.0, r=0.5), "classification")
    one.learn(new=images(20, 0, (0, 1)))
    seen = []

    def watch(run: Run, stage: Any, at: Any) -> None:
        mixed = next(p for p in run.parts.values() if isinstance(p, onpro.Mixed))
        seen.append((at.drawn(mixed), len(at.drawn(mixed.of))))

    one.learn(new=images(20, 1, (2, 3)), watch=[watch])
    for batch, n in seen:
        assert n // 2 <= len(batch) <= n
        assert bool((batch["y"] != batch["y2"])[n // 2 :].all())
        assert bool((batch["l"][: n // 2] <= 0.6).all())
        assert bool((0 <= batch["l"]).all())
    assert [e["op"].partition(":")[2] for e in one.problem.journal] == ["projector"]


def test_a_class_is_drawn_no_more_than_so_often_and_images_must_be_square() -> None:
    held = Buffer(30, name="stored")
    of = Problem(mlp(), new=(torch.randn(30, 6), torch.arange(30) % 2), task="classification")
    held.offer(of.source("new").batch(torch.arange(30)), seed=0)
    assert len(onpro.PerClass(held, 7).draw(64, step(of))) == 14
    with pytest.raises(BadInput, match="must be square"):
        learner(methods.onpro())


# --- all of them


PLANS: dict[str, Stage] = {
    "uer": methods.uer(buffer=6, epochs=1),
    "refresh_learning": methods.refresh_learning(delta=1e-2)(er(epochs=1)),
    "rer": methods.rer(every=2)(er(epochs=2)),
    "fpf": methods.fpf(steps=3, buffer=6)(methods.naive(batch=5)),
    "k-fpf": methods.fpf(k=2, steps=2, buffer=6)(methods.naive(batch=5)),
    "view_batch": methods.view_batch(R=2, warmup=0)(er(epochs=2)),
    "onpro": methods.onpro(buffer=6, replay=6, batch=10),
}


def network(name: str) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 4)) if name == "onpro" else mlp()


def given(name: str, turn: int) -> tuple[Tensor, Tensor]:
    return images(30, turn, (2 * turn, 2 * turn + 1)) if name == "onpro" else rows(30, 6, seed=turn)


def finished(name: str, turns: int = 2) -> Learner:
    torch.manual_seed(0)
    made = Learner(network(name), PLANS[name], "classification")
    for turn in range(turns):
        made.learn(new=given(name, turn))
    return made


@pytest.mark.parametrize("name", PLANS)
def test_killed_and_resumed_it_learns_the_same_bits(name: str, tmp_path: Any) -> None:
    whole = finished(name)
    at = whole.steps // 4  # in the middle of the second experience

    class Killed(Exception): ...

    def watch(run: Run, *_: Any) -> None:
        if run.problem.turn == 2 and run.steps == at:
            run.checkpoint()
            raise Killed

    def made() -> Learner:
        torch.manual_seed(0)
        return Learner(network(name), PLANS[name], "classification", folder=tmp_path)

    first = made()
    first.learn(new=given(name, 0))
    with pytest.raises(Killed):
        first.learn(new=given(name, 1), watch=[watch])
    again = made()
    for turn in range(2):
        again.learn(new=given(name, turn))
    assert same(state(again.problem), state(whole.problem))


@pytest.mark.parametrize("name", PLANS)
def test_a_deletion_request_reaches_its_rows(name: str) -> None:
    done = finished(name, turns=1)
    gone = memory(done).ids[:2].tolist()
    receipt = done.forget(gone)
    assert not set(memory(done).ids.tolist()) & set(gone)
    assert any("rows removed" in place.done for place in receipt.places)
    if name == "fpf":
        assert "Undone" in receipt.kept


def test_plans_print_and_copy() -> None:
    for plan in PLANS.values():
        assert repr(copy.deepcopy(plan)) == repr(plan)
