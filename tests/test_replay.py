"""Replay and distillation: losses by hand, what is stored and when, settings that make one method another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from small import mlp, rows, same, state, step
from torch import Tensor, nn

from oblivio import methods
from oblivio.core.descent import Descent
from oblivio.core.part import walk
from oblivio.core.plan import Plan, Stage
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import Term
from oblivio.data import split
from oblivio.learners.learner import Learner
from oblivio.methods.continual.distillation.lwf import answers
from oblivio.methods.continual.replay.er_ace import asymmetric
from oblivio.networks import build
from oblivio.sources import Buffer, as_source
from oblivio.tasks.incremental import Incremental, Outputs

CHEAP = {"lr": 0.05, "epochs": 1, "batch": 30}


def network() -> nn.Module:
    torch.manual_seed(0)
    return build("mlp", (1, 8, 8), 10, hidden=(12,))


ALL = "all"  # the outputs that are in play for DER


def learned(name: str, active: str = "seen", **settings: object) -> Learner:
    plan = methods.registry.get(name)(**CHEAP, **settings)
    learner = Learner(network(), plan, "classification", active=active)
    for experience in split("digits", tasks=5).train[:3]:
        learner.learn(experience)
    return learner


def stored(learner: Learner) -> Buffer:
    return next(part for part in learner.parts.values() if isinstance(part, Buffer))


def incremental(scenario: str, *came: dict[int, set[int]]) -> Incremental:
    outputs = Outputs(scenario)
    for tasks in came:
        outputs.begin(tasks)
    return Incremental(outputs)


def loss_of(plan: Stage) -> Term:
    """The objective of a plan's last descent."""
    stage = plan.stages[-1] if isinstance(plan, Plan) else plan
    assert isinstance(stage, Descent)
    return stage.loss


def filled(plan: Stage, of: Problem, **beside: Tensor) -> Buffer:
    """The plan's store, with all rows of ``old`` in it."""
    memory = next(part for _, part in walk(plan) if isinstance(part, Buffer))
    old = of.source("old")
    memory.offer(old.batch(torch.arange(len(old))), 0, beside)
    return memory


def two_sources(turn: int = 2) -> Problem:
    torch.manual_seed(0)
    of = Problem(mlp(), new=rows(5, 6), old=rows(7, 6, seed=1))
    of.turn = turn
    return of


def mean_loss(of: Problem, name: str) -> Tensor:
    x, y = rows(5, 6) if name == "new" else rows(7, 6, seed=1)
    return F.cross_entropy(of.model(x), y)


# --- ER


@torch.no_grad()
def test_er_adds_two_means() -> None:
    of, plan = two_sources(), methods.er(beta=0.5)
    assert loss_of(plan)(step(of)).item() == pytest.approx(mean_loss(of, "new").item(), rel=1e-6)
    filled(plan, of)
    expected = mean_loss(of, "new") + 0.5 * mean_loss(of, "old")
    assert loss_of(plan)(step(of)).item() == pytest.approx(expected.item(), rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("turn", [1, 2, 4])
def test_weights_by_tasks_give_the_new_experience_its_share(turn: int) -> None:
    of, plan = two_sources(turn), methods.er(weights="tasks", beta=2.0)
    filled(plan, of)
    expected = mean_loss(of, "new") / turn + 2 * (1 - 1 / turn) * mean_loss(of, "old")
    assert loss_of(plan)(step(of)).item() == pytest.approx(expected.item(), rel=1e-5)


@torch.no_grad()
def test_er_ace_leaves_earlier_classes_that_are_not_in_the_batch_alone() -> None:
    x, y = rows(6, 6)[0], torch.tensor([2, 3, 2, 3, 2, 2])
    of = Problem(mlp(), new=(x, y))
    of.task, of.turn = incremental("class", {0: {0, 1}}, {1: {2, 3}}), 2
    local = F.cross_entropy(of.model(x)[:, 2:], y - 2)
    assert asymmetric("new")(step(of)).item() == pytest.approx(local.item(), rel=1e-5)


@torch.no_grad()
def test_er_ace_keeps_an_earlier_class_that_came_again_and_new_ones_that_did_not() -> None:
    x, y = rows(3, 6)[0], torch.tensor([2, 0, 2])
    of = Problem(mlp(), new=(x, y))
    of.task, of.turn = incremental("class", {0: {0, 1}}, {1: {0, 2, 3}}), 2
    played = of.model(x)[:, [0, 2, 3]]
    expected = F.cross_entropy(played, torch.tensor([1, 0, 1]))
    assert asymmetric("new")(step(of)).item() == pytest.approx(expected.item(), rel=1e-5)


@torch.no_grad()
def test_er_ace_is_the_plain_loss_in_the_first_experience_and_replays_with_all_classes() -> None:
    of, plan = two_sources(turn=1), methods.er_ace()
    of.task = incremental("class", {0: {0, 1, 2, 3}})
    filled(plan, of)
    expected = mean_loss(of, "new") + mean_loss(of, "old")
    assert loss_of(plan)(step(of)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_every_row_that_passed_is_kept_with_the_same_probability() -> None:
    rows_, size, runs = 10_000, 500, 30
    source = as_source({"x": torch.zeros(rows_, 1), "y": torch.zeros(rows_, dtype=torch.long)})
    counts = np.zeros(20)
    for run in range(runs):
        memory = Buffer(size)
        for i, batch in enumerate(source.batches(100)):
            memory.offer(batch, run * 1000 + i)
        counts += np.bincount(memory.ids // 500, minlength=20)
        assert len(set(memory.ids.tolist())) == size
    assert chisquare(counts).pvalue > 0.001


def test_the_batch_is_drawn_before_it_is_stored() -> None:
    """A batch that could replay itself would be drawn from a store that holds it."""
    of = two_sources()
    plan = methods.er(buffer=50, lr=0.1, batch=5)
    seen: list[int] = []
    learner = Learner(of.model, plan, "classification")

    def watch(run: object, stage: object, now: Step) -> None:
        seen.append(len(now.drawn(buffer_of(stage))) if "replay" in now._batches else 0)

    learner.learn(new=rows(15, 6), watch=[watch])
    assert seen == [0, 5, 10]


def buffer_of(stage: object) -> Buffer:
    return next(part for part in stage.own if isinstance(part, Buffer))  # type: ignore[attr-defined]


# --- DER


@torch.no_grad()
def test_der_adds_the_mean_square_over_rows_and_outputs() -> None:
    of, plan = two_sources(), methods.der(alpha=0.3)
    z = torch.randn(7, 4, generator=torch.Generator().manual_seed(5))
    filled(plan, of, z=z)
    out = of.model(rows(7, 6, seed=1)[0])
    expected = mean_loss(of, "new") + 0.3 * ((out - z) ** 2).sum() / 28
    assert loss_of(plan)(step(of)).item() == pytest.approx(expected.item(), rel=1e-5)


@torch.no_grad()
def test_der_pp_adds_the_labels_of_a_second_draw() -> None:
    of, plan = two_sources(), methods.der_pp(alpha=0.3, beta=0.7)
    z = torch.randn(7, 4, generator=torch.Generator().manual_seed(5))
    filled(plan, of, z=z)
    out = of.model(rows(7, 6, seed=1)[0])
    expected = mean_loss(of, "new") + 0.3 * F.mse_loss(out, z) + 0.7 * mean_loss(of, "old")
    assert loss_of(plan)(step(of)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_two_draws_of_der_pp_are_apart() -> None:
    of, plan = two_sources(), methods.der_pp(replay=3)
    filled(plan, of, z=torch.zeros(7, 4))
    now = step(of)
    with torch.no_grad():
        loss_of(plan)(now)
    first, second = (now._batches[name]["id"].tolist() for name in ("replay", "replay_twin"))
    assert len(first) == len(second) == 3
    assert first != second


@pytest.mark.parametrize("name", ["der", "der_pp"])
def test_a_row_is_stored_with_its_logits_from_before_the_update(name: str) -> None:
    learner = Learner(mlp(), methods.registry.get(name)(buffer=20, lr=0.5, batch=6), "classification")
    x, y = rows(6, 6)
    before = learner.predict(x)
    learner.learn(new=(x, y))
    memory = stored(learner)
    kept = memory.batch(torch.arange(6))
    assert torch.allclose(kept["z"], before[kept["id"]], atol=1e-6)
    assert not torch.allclose(learner.predict(x), before, atol=1e-2)


@pytest.mark.parametrize(("name", "settings"), [
    ("er", {"beta": 0.0}), ("der", {"alpha": 0.0}), ("der_pp", {"alpha": 0.0, "beta": 0.0}), ("lwf", {"lambda_o": 0.0}),
])  # fmt: skip
def test_without_weights_a_method_is_naive_to_the_bit(name: str, settings: dict[str, float]) -> None:
    assert same(state(learned(name, ALL, **settings).problem), state(learned("naive", ALL).problem))
    assert not same(state(learned(name, ALL).problem), state(learned("naive", ALL).problem))


def test_der_pp_with_labels_alone_is_er_up_to_sampling() -> None:
    settings = {"buffer": 20, "replay": 20}  # all rows are drawn, so that only their order is left to sampling
    er, der_pp = learned("er", ALL, **settings), learned("der_pp", ALL, alpha=0.0, beta=1.0, **settings)
    assert stored(er).ids.tolist() == stored(der_pp).ids.tolist()
    a, b = state(er.problem), state(der_pp.problem)
    assert all(torch.allclose(a[n], b[n], atol=1e-5) for n in a)
    naive = state(learned("naive", ALL).problem)
    assert not all(torch.allclose(a[n], naive[n], atol=1e-3) for n in a)


# --- LwF


def with_a_past(task: Incremental) -> tuple[Problem, Tensor, Tensor]:
    """A problem whose weights have left the start; its outputs on the new rows then and now."""
    torch.manual_seed(0)
    x, y = rows(5, 6)
    of = Problem(mlp(outputs=6), new=(x, y))
    of.task, of.turn = task, len(task.outputs.came)
    of.keep("start")
    then = of.model(x).detach()
    with torch.no_grad():
        of.model[2].weight.mul_(1.5)
    of.moved = True
    return of, then, of.model(x).detach()


def tempered(then: Tensor, now: Tensor, temperature: float) -> float:
    """As published: probabilities raised to 1/T and made to sum to 1 again."""
    q, p = then.softmax(1) ** (1 / temperature), now.softmax(1) ** (1 / temperature)
    q, p = q / q.sum(1, keepdim=True), p / p.sum(1, keepdim=True)
    return float(-(q * p.log()).sum(1).mean())


CAME = ({0: {0, 1}}, {1: {2, 3}}, {2: {4, 5}})


@torch.no_grad()
@pytest.mark.parametrize(("scenario", "groups"), [
    ("class", [[0, 1, 2, 3]]), ("task", [[0, 1], [2, 3]]), ("domain", [[0, 1, 2, 3, 4, 5]]),
])  # fmt: skip
def test_lwf_distils_the_outputs_that_were_learned_before(scenario: str, groups: list[list[int]]) -> None:
    of, then, now = with_a_past(incremental(scenario, *CAME))
    expected = sum(tempered(then[:, group], now[:, group], 2.0) for group in groups)
    assert answers("new", 2.0)(step(of)).item() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_lwf_adds_lambda_o_from_the_second_experience_on() -> None:
    for came, part in ((CAME[:1], 0.0), (CAME[:2], 3.0)):
        of, then, now = with_a_past(incremental("class", *came))
        x, y = rows(5, 6, classes=2 * len(came))
        of.sources["new"] = of._named("new", as_source((x, y)))
        new = F.cross_entropy(now[:, : 2 * len(came)], y)
        expected = new + part * tempered(then[:, :2], now[:, :2], 2.0)
        assert loss_of(methods.lwf(lambda_o=3.0))(step(of)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_answers_of_lwf_are_those_of_the_model_before_the_experience() -> None:
    learner = learned("lwf")
    of, key = learner.problem, next(k for k in learner.problem.frozen if k.startswith("new|start"))
    before = Learner(network(), methods.lwf(**CHEAP), "classification")
    for experience in split("digits", tasks=5).train[:2]:
        before.learn(experience)
    x = of.source("new").batch(torch.arange(8))["x"]
    with torch.no_grad():
        assert torch.allclose(of.frozen[key][:8], before.model(x), atol=1e-5)


def test_the_warm_up_of_lwf_moves_the_last_layer_alone() -> None:
    first = methods.lwf(warmup=1).stages[0]
    learner = Learner(network(), first, "classification")
    start = state(learner.problem)
    learner.learn(split("digits", tasks=5).train[0])
    moved = [n for n, t in state(learner.problem).items() if not torch.equal(t, start[n])]
    assert len(moved) == 2
    assert all(n.startswith(learner.problem.features) for n in moved)
