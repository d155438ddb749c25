"""Runs: killed at every step and resumed; what a folder refuses; what is left alone; guards; learners."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small import killed, mlp, problem, resumes_everywhere, rows, same, state, step
from torch import Tensor, nn

from oblivio import terms
from oblivio.core import run as runs
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.grads import Grads
from oblivio.core.importance import fisher
from oblivio.core.opt import adam, cosine, sgd
from oblivio.core.plan import Cycle, Stage, edit, keep, restore
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Batch, Source
from oblivio.core.step import Step
from oblivio.core.surgery import surgery
from oblivio.core.term import term
from oblivio.core.where import How, Names
from oblivio.edits import prune
from oblivio.how import clip
from oblivio.learners.learner import Learner
from oblivio.where import saliency, surviving

FIT, KEEP = terms.fit("forget"), terms.fit("retain")


# --- Parts that change in a run


class Smooth(How):
    """A running mean of the gradient, kept in the state."""

    def __call__(self, grads: Grads, step: Step) -> Grads:
        old = self.state.get("mean", grads)
        self.state["mean"] = {k: 0.5 * old[k] + 0.5 * g for k, g in grads.items()}
        return dict(self.state["mean"])


class Reservoir(Source):
    """A few rows of a stream, kept by what the clock draws."""

    def __init__(self, size: int, of: str) -> None:
        self.room, self.of = size, of

    def __len__(self) -> int:
        return len(self.state.get("x", ()))

    def after(self, step: Step) -> None:
        batch, s = step.batch(self.of), self.state
        kept = {c: torch.cat([s[c], batch[c]]) if c in s else batch[c].clone() for c in ("x", "y")}
        chosen = torch.randperm(len(kept["y"]), generator=step.rng("reservoir"))[: self.room]
        s.update({c: v[chosen] for c, v in kept.items()})

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        into[name] = self.state[name][rows]

    def draw(self, n: int, step: Step) -> Batch:
        return self.batch(torch.randint(len(self), (min(n, len(self)),), generator=step.rng(self.name)))

    def forget(self, rows: Source, problem: Problem) -> str:
        gone = rows.batch(torch.arange(len(rows)))["x"]
        stays = ~(self.state["x"][:, None] == gone).all(2).any(1)
        self.state.update({c: v[stays] for c, v in self.state.items()})
        return f"{(~stays).sum()} rows removed"


class Grow(How):
    """One more unit before the last layer when the clock says so."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before(self, step: Step) -> None:
        if step.t == self.at:
            step.problem.operate(one_more, seed=step.t)


class Wider(nn.Module):
    """A head that grows by whole tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.heads = nn.Linear(6, 5), nn.ModuleList([nn.Linear(5, 4)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        return sum(head(h) for head in self.heads)


@surgery
def one_more(nets: dict[str, nn.Module], *, seed: int) -> None:
    """Another head, added to what the others give."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets["model"].heads.append(nn.Linear(5, 4))


@edit(makes=True)
def halve(problem: Problem) -> None:
    """A source made in mid-run."""
    batch = problem.source("retain").batch(torch.arange(12))
    problem.make("half", x=batch["x"], y=batch["y"])


@term
def judged(step: Step, on: str, sign: float = 1.0) -> Tensor:
    """What a critic says of the model's outputs; one player lowers it, the other raises it."""
    values = step.call(lambda nets: nets["critic"](nets["model"](step.batch(on)["x"])))
    return sign * values.square().flatten()


def noisy() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))


def players() -> Problem:
    torch.manual_seed(0)
    return Problem({"model": mlp(), "critic": nn.Linear(4, 1)}, forget=rows(12, 6), retain=rows(30, 6, seed=1))


def game() -> Stage:
    shared = adam(0.01)
    return Cycle(
        Descent(judged("retain", sign=-1.0), "critic.*", opt=adam(0.01), steps=lambda visit: 1 if visit else 3),
        Descent(judged("retain") + KEEP, opt=shared, steps=1), Descent(FIT, "*.bias", opt=shared, steps=1), rounds=3,
    ) >> Descent(KEEP, opt=shared, steps=2)  # fmt: skip


def replay() -> Stage:
    buffer = Reservoir(7, of="retain")
    return Descent(KEEP + terms.fit(buffer), over="retain", opt=sgd(0.1, 0.9), epochs=1, batch=8)


PLANS: dict[str, tuple[Callable[[], Stage], Callable[[], Problem]]] = {
    "mask, reference, look-ahead, chunks, schedule": (
        lambda: Descent(terms.sam(terms.npo("forget")) + terms.relabel("forget") + KEEP, saliency(FIT, 0.5), clip(1.0),
                        adam(0.01, schedule=cosine), over="retain", epochs=2, batch=16, chunk=8),
        lambda: problem(noisy)),
    "two players in mid-round": (game, players),
    "a buffer that fills": (replay, problem),
    "a state of tensors": (lambda: Descent(KEEP, how=Smooth(), opt=sgd(0.1, 0.9), epochs=1, batch=8), problem),
    "growth in mid-stage": (lambda: Descent(KEEP, how=Grow(2), opt=adam(0.01), steps=5), lambda: problem(Wider)),
    "edits and snapshots between": (
        lambda: keep("before") >> Descent(FIT, steps=2) >> prune(0.3) >> Descent(KEEP, surviving(), steps=2)
        >> restore("before") >> halve() >> Descent(terms.fit("half"), steps=2), problem),
    "stopped by what it reaches": (
        lambda: Descent(KEEP, opt=sgd(0.5), steps=40, until=lambda p: p.score("retain") > 0.5, every=2), problem),
    "rounds within rounds": (
        lambda: Cycle(Cycle(Descent(FIT, steps=1), Descent(KEEP, steps=1), rounds=2), Descent(KEEP, steps=1), rounds=2),
        problem),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_killed_at_any_step_and_resumed_it_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    plan, make = PLANS[name]
    done = resumes_everywhere(plan, make, tmp_path)
    assert not same(state(done), state(make()))


def test_a_checkpoint_does_not_change_the_outcome(tmp_path: Path) -> None:
    often, never = problem(), problem()
    Run(replay(), often, tmp_path, every=0.0).go()
    Run(replay(), never).go()
    assert same(state(often), state(never))
    last = json.loads((tmp_path / "checkpoint.json").read_text())["folder"]
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == [last]


def test_without_a_checkpoint_a_run_starts_afresh(tmp_path: Path) -> None:
    a, b = problem(), problem()
    Run(replay(), a, tmp_path).resume().go()
    Run(replay(), b).go()
    assert same(state(a), state(b))


def test_a_finished_run_is_not_done_twice(tmp_path: Path) -> None:
    first, again = problem(), problem()
    Run(replay(), first, tmp_path).go()
    Run(replay(), again, tmp_path).resume().go()
    assert same(state(first), state(again))


def test_in_a_cycle_each_stage_keeps_its_clock() -> None:
    seen: list[tuple[str, int]] = []
    watch = lambda run, stage, now: seen.append((stage.place[-1], now.t))  # noqa: E731
    Run(Cycle(Descent(FIT, steps=2), Descent(KEEP, steps=1), rounds=2), problem(), watch=[watch]).go()
    assert seen == [("0", 0), ("0", 1), ("1", 0), ("0", 2), ("0", 3), ("1", 1)]


# --- which folder is taken up again


def other_plan(m: pytest.MonkeyPatch) -> tuple[Stage, Problem]:
    return Descent(KEEP, opt=sgd(0.2), steps=4), problem()


def other_seed(m: pytest.MonkeyPatch) -> tuple[Stage, Problem]:
    return Descent(KEEP, steps=4), problem(seed=1)


def other_rows(m: pytest.MonkeyPatch) -> tuple[Stage, Problem]:
    return Descent(KEEP, steps=4), problem(m=29)


def other_model(m: pytest.MonkeyPatch) -> tuple[Stage, Problem]:
    return Descent(KEEP, steps=4), problem(lambda: mlp(hidden=7))


def other_threads(m: pytest.MonkeyPatch) -> tuple[Stage, Problem]:
    m.setattr(torch, "get_num_threads", lambda: 64)
    return Descent(KEEP, steps=4), problem()


def other_version(m: pytest.MonkeyPatch) -> tuple[Stage, Problem]:
    m.setattr(torch, "__version__", "1.0")
    return Descent(KEEP, steps=4), problem()


def other_machine(m: pytest.MonkeyPatch) -> tuple[Stage, Problem]:
    m.setattr(runs.platform, "machine", lambda: "vax")
    return Descent(KEEP, steps=4), problem()


@pytest.mark.parametrize(("change", "word"), [
    (other_plan, "plan = Descent"), (other_seed, "seed = 0"), (other_rows, "sources"), (other_model, "weights"),
    (other_threads, "threads = "), (other_version, "versions"), (other_machine, "machine"),
])  # fmt: skip
def test_a_folder_of_another_run_is_refused(
    change: Callable[..., tuple[Stage, Problem]], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(Descent(KEEP, steps=4), problem(), 2, tmp_path)
    plan, of = change(monkeypatch)
    before = state(of)
    with pytest.raises(BadInput, match=f"was run with {word}.*; now it is "):
        Run(plan, of, tmp_path).resume()
    assert same(state(of), before)


# --- what is left alone


def looked_at(of: Problem) -> None:
    of.predict("test")
    of.score("test")
    of.gradient(FIT - KEEP)
    fisher(of, "test")
    of.freeze("forget", terms.npo("forget").frozen[0])


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_weights_statistics_modes_and_random_state(training: bool) -> None:
    of = problem(noisy, test=rows(9, 6, seed=2))
    of.model.train(training)
    of.model[0].weight.requires_grad_(False)
    before, random = state(of), torch.get_rng_state()
    looked_at(of)
    assert same(state(of), before)
    assert {m.training for m in of.model.modules()} == {training}
    assert [p.requires_grad for p in of.model.parameters()] == [False, True, True, True, True]
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(("loss", "moves", "counted"), [
    (KEEP + FIT, None, 5), (FIT, None, 0), (FIT, ("forget",), 5), (terms.sam(KEEP), None, 5),
    (KEEP + terms.relabel("forget") + terms.npo("forget"), None, 5),
])  # fmt: skip
def test_only_retained_rows_move_statistics_or_what_a_method_says(loss: Any, moves: Any, counted: int) -> None:
    of = problem(noisy)
    start = of.model[1].num_batches_tracked.item()
    given = {} if moves is None else {"moves": moves}
    Run(Descent(loss, opt=sgd(0.0), steps=5, batch=8, **given), of).go()
    assert of.model[1].num_batches_tracked.item() - start == counted
    if counted == 0:
        assert same({"mean": of.model[1].running_mean}, {"mean": torch.zeros(8)})


def test_statistics_move_by_retained_rows_as_a_plain_loop_moves_them() -> None:
    of, seen = problem(noisy), []
    plain = copy.deepcopy(of.model).train()
    watch = lambda run, stage, now: seen.append(now.batch("retain")["x"])  # noqa: E731
    Run(Descent(KEEP + FIT, opt=sgd(0.0), steps=4, batch=8), of, watch=[watch]).go()
    for x in seen:
        plain(x)
    torch.testing.assert_close(of.model[1].running_mean, plain[1].running_mean)
    torch.testing.assert_close(of.model[1].running_var, plain[1].running_var)


def test_a_frozen_module_is_in_evaluation_mode_and_needs_no_gradient() -> None:
    modes: list[tuple[list[bool], list[bool]]] = []
    of = problem(noisy)

    def watch(run: Run, stage: Stage, now: Step) -> None:
        modes.append(([m.training for m in of.model], [p.requires_grad for p in of.model.parameters()]))

    Run(Descent(KEEP, "model.4.*", steps=1), of, watch=[watch]).go()
    assert modes == [([False, False, True, True, True], [False, False, False, True, True])]
    assert of.model[1].num_batches_tracked.item() == 0


def test_the_plan_given_is_a_value() -> None:
    plan = replay()
    ends = [state(Run(plan, problem()).go()) for _ in range(2)]
    assert same(*ends)
    assert plan.state == {}


def test_the_same_seed_gives_the_same_bits_whatever_else_draws() -> None:
    plan, ends = PLANS["mask, reference, look-ahead, chunks, schedule"][0], []
    for draws, seed in ((0, 0), (7, 0), (0, 1)):
        of = problem(noisy, seed=seed)
        torch.rand(draws)
        ends.append(state(Run(plan(), of).go()))
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


# --- guards and checks before any work


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    of = problem()
    with pytest.raises(Stopped, match="lower the learning rate"):
        Run(Descent(-1.0 * FIT, opt=sgd(1e38), steps=60), of.copy()).go()
    assert same(state(of), state(problem()))


def test_a_watch_can_stop_a_run() -> None:
    def watch(run: Run, stage: Stage, now: Step) -> None:
        if run.problem.passes["retain"] > 40:
            raise Stopped("enough")

    of = problem()
    with pytest.raises(Stopped, match="enough"):
        Run(Descent(KEEP, steps=10, batch=16), of, watch=[watch]).go()
    assert of.passes["retain"] == 46  # 16, 14, 16


@pytest.mark.parametrize(("plan", "words"), [
    (Descent(KEEP, steps=1) >> Descent(terms.fit("other"), steps=1), "no source 'other'"),
    (keep("a") >> Descent(KEEP, steps=1) >> Descent(terms.fit("half"), steps=1), "no source 'half'"),
    (Descent(KEEP.weighted(terms.memorised()), steps=1, chunk=4), "leave out chunk=4"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_before_any_work(plan: Stage, words: str) -> None:
    of = problem()
    with pytest.raises(BadInput, match=words):
        Run(plan, of).go()
    assert of.passes == {}
    assert same(state(of), state(problem()))


def test_a_snapshot_that_nobody_kept_is_named() -> None:
    of = problem()
    of.keep("before")
    with pytest.raises(BadInput, match=r"no snapshot 'befor'; did you mean 'before'\?; keep\('befor'\) first"):
        step(of).out("retain", at="befor")


def test_the_model_s_layers_are_named() -> None:
    assert problem().features == "model.2"
    with pytest.raises(BadInput, match="no layer '1x'; did you mean '1'"):
        problem(features="1x").features  # noqa: B018
    with pytest.raises(BadInput, match="no linear layer"):
        Problem(nn.ReLU(), forget=rows(3, 4)).features  # noqa: B018


def test_a_weight_that_gets_its_gradient_later_is_no_trouble() -> None:
    """The fused step of SGD takes no weights with and without momentum together."""
    of = players()
    late = (lambda s: float(s.t > 1)) * judged("retain")
    end = Run(Descent(KEEP + late, Names("model.* critic.*"), opt=sgd(0.1, 0.9), steps=4), of).go()
    assert not torch.equal(end.weights()["critic.weight"], players().weights()["critic.weight"])


# --- learners


def test_a_learner_runs_its_plan_for_every_experience_and_keeps_its_memory() -> None:
    buffer = Reservoir(7, of="new")
    new = terms.fit("new")
    plan = Descent(new + terms.fit(buffer), over="new", epochs=1, batch=8) >> Descent(new, steps=1)
    torch.manual_seed(0)
    learner = Learner(mlp(), plan, task="classification")
    ends = [state(learner.problem)]
    for turn in (1, 2):
        learner.learn(new=rows(20, 6, seed=turn))
        ends.append(state(learner.problem))
        assert learner.problem.turn == turn
    assert not same(ends[0], ends[1])
    assert not same(ends[1], ends[2])
    memory = lambda: next(part for part in learner.parts.values() if isinstance(part, Reservoir))  # noqa: E731
    x, y = rows(20, 6, seed=2)
    held = lambda: int((memory().state["x"][:, None] == x).all(2).any(1).sum())  # noqa: E731
    assert held() > 0
    learner.forget((x, y))
    assert held() == 0
    assert learner.predict(x).shape == (20, 4)
