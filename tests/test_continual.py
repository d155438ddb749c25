"""A learner that learns experience by experience: masks, growth, memories, resuming, forgetting."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import oblivio as ob
from oblivio import data, methods, terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.opt import adam, sgd
from oblivio.core.plan import Stage, keep
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Batch
from oblivio.data.streams.experience import Stream
from oblivio.learners.learner import Learner
from oblivio.modules.growing import GrownLinear
from oblivio.modules.masked import MASKED
from oblivio.networks import build
from oblivio.sources import Buffer, Exemplars, Memory, Twin, as_source, outputs
from oblivio.tasks.incremental import Incremental, Outputs

SCENARIOS = ("class", "task", "domain")
FAST: dict[str, Any] = {"epochs": 1, "batch": 16, "lr": 0.05}


def stream(scenario: str = "class", **options: Any) -> Stream:
    return data.split("digits", tasks=5, scenario=scenario, **options)


def net(outs: int = 10, hidden: tuple[int, ...] = (16,), seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("mlp", (1, 8, 8), outs, hidden=hidden)


def learner(method: str = "er", scenario: str = "class", upto: int = 2, **options: Any) -> Learner:
    settings = {**FAST, **({"buffer": 40} if method in ("er", "der", "der_pp") else {})}
    made: Learner = ob.learner(net(), method, **settings, **options)
    for experience in stream(scenario).train[:upto]:
        made.learn(experience)
    return made


def bits(of: Learner) -> dict[str, Tensor]:
    tensors = [*of.problem.nets.named_parameters(), *of.problem.nets.named_buffers()]
    return {n: t.detach().clone() for n, t in tensors}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def memory(of: Learner) -> Memory:
    return next(part for part in of.parts.values() if isinstance(part, Memory))


# --- which outputs count


def batch(tasks: list[int]) -> Batch:
    rows = as_source({"x": torch.zeros(len(tasks), 2), "y": torch.zeros(len(tasks)), "task": torch.tensor(tasks)})
    return rows.batch(torch.arange(len(tasks)))


def counted(out: Tensor) -> list[list[int]]:
    return [(row > MASKED).nonzero().flatten().tolist() for row in out]


def test_outputs_of_classes_that_were_seen() -> None:
    policy = Outputs("class")
    policy.begin({0: (4, 1)})
    policy.begin({1: (0, 3)})
    out, two = torch.zeros(2, 6), batch([0, 1])
    for view, columns in {"seen": [0, 1, 3, 4], "served": [0, 1, 3, 4], "train": [0, 1, 3, 4], "old": [1, 4],
                          "current": [0, 3], "all": [0, 1, 2, 3, 4, 5]}.items():  # fmt: skip
        assert counted(policy.view(out, two, view)) == [columns] * 2
    assert counted(policy.view(out, two, "task")) == [[1, 4], [0, 3]]
    assert [c.tolist() for c in policy.heads] == [[1, 4]]
    assert counted(Outputs("class", "all").view(out, two, "train")) == [list(range(6))] * 2


def test_in_the_scenario_task_every_row_says_which_outputs_count() -> None:
    policy = Outputs("task")
    policy.begin({0: (4, 1)})
    policy.begin({2: (0,)})
    policy.begin({0: (2,), 5: (3,)})
    out = torch.zeros(4, 6)
    for view in ("served", "train", "task"):
        assert counted(policy.view(out, batch([0, 2, 5, 9]), view)) == [[1, 2, 4], [0], [3], list(range(6))]
    assert [c.tolist() for c in policy.heads] == [[1, 4], [0]]


def test_in_the_scenario_domain_all_outputs_always_count() -> None:
    policy = Outputs("domain")
    policy.begin({0: (0, 1)})
    out = torch.randn(2, 3)
    for view in ("served", "train", "task", "seen", "current", "old"):
        assert torch.equal(policy.view(out, batch([0, 1]), view), out)
    assert policy.heads == [None]


def test_the_training_loss_is_the_cross_entropy_of_the_outputs_that_count() -> None:
    policy = Outputs("class")
    policy.begin({0: (0, 2)})
    out = torch.tensor([[1.0, 9.0, 2.0]])
    one = as_source({"x": torch.zeros(1, 2), "y": torch.tensor([2])}).batch(torch.arange(1))
    expected = np.log(np.exp(1) + np.exp(2)) - 2
    assert float(Incremental(policy).each(out, one)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Outputs("classes"), "did you mean 'class'"),
    (lambda: Outputs("class", "some"), "seen, all, current"),
])  # fmt: skip
def test_unknown_words_are_refused(make: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make()


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("method", ["naive", "er"])
def test_a_prediction_depends_on_its_row_alone(scenario: str, method: str) -> None:
    made, tests = learner(method, scenario), stream(scenario).held
    whole = tests.batch(torch.arange(len(tests)))
    task = whole["task"] if scenario == "task" else None
    out = made.predict(whole["x"], task=task)
    order = torch.randperm(len(tests), generator=torch.Generator().manual_seed(0))[:50]
    shuffled = made.predict(whole["x"][order], task=None if task is None else task[order])
    torch.testing.assert_close(shuffled, out[order])
    for i in order[:10].tolist():
        alone = made.predict(whole["x"][i : i + 1], task=None if task is None else int(task[i]))
        torch.testing.assert_close(alone[0], out[i])


def test_nobody_is_told_the_task_where_the_scenario_has_none() -> None:
    x = torch.rand(3, 1, 8, 8)
    with pytest.raises(BadInput, match="leave it out"):
        learner("naive", "class", 1).predict(x, task=0)
    with pytest.raises(BadInput, match="give task="):
        learner("naive", "task", 1).predict(x)


def test_only_classes_that_came_are_answered() -> None:
    made = learner("naive", upto=2)
    out = made.predict(stream().held.batch(torch.arange(50))["x"])
    assert set(out.argmax(1).tolist()) <= {0, 1, 2, 3}
    assert counted(out)[0] == [0, 1, 2, 3]


def test_qualities_of_all_views_come_from_one_pass() -> None:
    made, tests = learner("naive"), stream().held
    made.problem.passes = {}
    found = made.qualities(tests, ("served", "task"))
    assert made.problem.passes == {"": len(tests)}
    assert float(found["task"].mean()) > float(found["served"].mean())
    assert found["served"].shape == (len(tests),)


# --- what a learner refuses


def test_what_cannot_be_learned_is_refused_and_changes_nothing() -> None:
    made = learner(upto=1)
    before, turn = bits(made), made.turn
    small: Learner = ob.learner(net(1), "naive", grow=False, **FAST)
    empty = ob.data.Experience(stream().train[0].rows.take([]), 0, (0, 1), "class")
    for what, words in (
        (lambda: made.learn(empty), "without rows"),
        (lambda: made.learn(stream("domain").train[0]), "scenario 'class'"),
        (lambda: made.learn(), "give an experience"),
        (lambda: made.learn((torch.zeros(2, 64), torch.zeros(2))), "new=rows"),
        (lambda: small.learn(stream().train[0]), "grow=True"),
    ):
        with pytest.raises(BadInput, match=words):
            what()
    assert made.turn == turn
    assert same(bits(made), before)


def test_an_experience_that_breaks_off_leaves_the_learner_as_it_was() -> None:
    made = learner(upto=1)
    before, held = bits(made), memory(made).ids.tolist()

    def stop(run: Any, stage: Any, step: Any) -> None:
        if run.steps == 5:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        made.learn(stream().train[1], watch=[stop])
    assert made.turn == 1
    assert same(bits(made), before)
    assert memory(made).ids.tolist() == held
    untouched = learner(upto=2)
    made.learn(stream().train[1])
    assert same(bits(made), bits(untouched))


def test_the_given_model_stays_as_it_is() -> None:
    model = net()
    before = {n: p.clone() for n, p in model.named_parameters()}
    ob.learner(model, "naive", **FAST).learn(stream().train[0])
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


# --- growth


def test_a_head_grows_by_what_an_experience_brings_and_keeps_its_old_outputs() -> None:
    made = Learner(net(2), methods.naive(**FAST), "classification")
    made.learn(stream().train[0])
    x = stream().held.batch(torch.arange(20))["x"]
    widths, old = [], made.predict(x)[:, :2]
    for experience in stream().train[1:3]:
        made.learn(experience)
        widths.append(made.predict(x).shape[1])
    assert widths == [4, 6]
    assert isinstance(made.model.head, GrownLinear)
    assert len(made.problem.weights("model.head.*")) == 6
    assert made.problem.features == "model.head"
    stopped = Learner(net(2), Descent(terms.fit("new"), steps=0), "classification")
    for experience in stream().train[:3]:
        stopped.learn(experience)
    torch.testing.assert_close(stopped.predict(x)[:, :2], Learner(net(2), Descent(terms.fit("new"), steps=0),
                               "classification").learn(stream().train[0]).predict(x)[:, :2])  # fmt: skip
    assert old.shape == (20, 2)


# --- memories


def passed(buffer: Memory, labels: list[int], size: int = 7, seed: int = 0) -> Memory:
    rows = as_source({"x": torch.arange(float(len(labels)))[:, None], "y": torch.tensor(labels)})
    if isinstance(buffer, Buffer):
        for start in range(0, len(labels), size):
            buffer.offer(rows.batch(torch.arange(start, min(start + size, len(labels)))), seed + start)
    return buffer


def test_a_reservoir_keeps_every_row_with_the_same_probability() -> None:
    n, size, runs = 200, 20, 300
    counts = np.zeros(n)
    for run in range(runs):
        counts[passed(Buffer(size), [0] * n, seed=1000 * run).ids] += 1
    assert counts.sum() == size * runs
    assert stats.chisquare(counts).pvalue > 0.001


@settings(max_examples=40, deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=80), size=st.integers(1, 30), step=st.integers(1, 9))
def test_a_memory_never_exceeds_its_size_and_holds_whole_rows(labels: list[int], size: int, step: int) -> None:
    for policy in ("reservoir", "balanced", "recent"):
        if policy == "balanced" and size < len(set(labels)):
            continue
        buffer = passed(Buffer(size, policy=policy), labels, step)
        assert len(buffer) <= size
        assert len(buffer) == min(size, len(labels)) or policy == "balanced"
        rows = buffer.batch(torch.arange(len(buffer)))
        assert rows["x"].flatten().long().tolist() == rows["id"].tolist()
        assert rows["y"].tolist() == [labels[i] for i in rows["id"].tolist()]
        if policy == "recent":
            assert set(buffer.ids.tolist()) == set(range(max(0, len(labels) - size), len(labels)))


def test_a_balanced_memory_holds_as_many_of_every_class() -> None:
    labels = np.random.default_rng(0).permutation([0] * 200 + [1] * 50 + [2] * 30 + [3] * 40).tolist()
    counts = np.bincount(passed(Buffer(20, policy="balanced"), labels).batch(torch.arange(20))["y"])
    assert counts.tolist() == [5, 5, 5, 5]


def test_a_buffer_is_filled_after_the_update_and_stores_what_was_seen_before_it() -> None:
    plan = Descent(terms.fit("new") + terms.fit(buffer := Buffer(8, store=outputs)), over="new", steps=1, batch=8,
                   opt=sgd(0.5))  # fmt: skip
    torch.manual_seed(0)
    problem = Problem(nn.Linear(2, 3), task="classification", new=(torch.randn(8, 2), torch.randint(3, (8,))))
    before, problem.passes = problem.predict("new"), {}
    Run(plan, problem, fresh=False).go()
    rows = buffer.batch(torch.arange(8))
    torch.testing.assert_close(rows["z"], before[rows["id"]])
    assert problem.passes == {"new": 8}


def test_a_draw_has_no_row_twice_and_twins_draw_apart() -> None:
    buffer = passed(Buffer(30), [0] * 100)
    problem = Problem(nn.Linear(1, 2), task="classification", new=(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long)))
    plan = Descent(terms.fit(buffer) + terms.fit(twin := Twin(buffer)), steps=3, batch=10, opt=sgd(0.1))
    drawn: list[tuple[list[int], list[int]]] = []
    Run(plan, problem, fresh=False, watch=[lambda r, s, step: drawn.append(
        (step.drawn(buffer).rows.tolist(), step.drawn(twin).rows.tolist()))]).go()  # fmt: skip
    for one, other in drawn:
        assert len(set(one)) == len(set(other)) == 10
        assert one != other
    assert drawn[0] != drawn[1]


def test_an_epoch_is_as_long_as_the_named_source_whatever_the_buffer_holds() -> None:
    steps = [learner("er", upto=2, folder=None).steps]
    made: Learner = ob.learner(net(), "er", buffer=400, **FAST)
    for experience in stream().train[:2]:
        made.learn(experience)
    assert [made.steps] == steps == [sum(-(-len(e) // 16) for e in stream().train[:2])]


def test_exemplars_have_equal_shares_that_shrink_in_order() -> None:
    first, plan = [], Descent(terms.fit("new"), over="new", epochs=1, batch=16) >> Descent(
        terms.fit(Exemplars(20, by="turn")), steps=1)  # fmt: skip
    made = Learner(net(), plan, "classification")
    for turn, experience in enumerate(stream().train[:3], 1):
        made.learn(experience)
        held = memory(made)
        assert isinstance(held, Exemplars)
        assert np.bincount(held.groups).tolist() == [0] + [20 // turn] * turn
        kept = held.ids[held.groups.numpy() == 1].tolist()
        assert not first or kept == first[: len(kept)]
        first = first or kept


def test_a_memory_smaller_than_what_it_must_hold_is_refused() -> None:
    plan = Descent(terms.fit("new") + terms.fit(Exemplars(3, by="y")), over="new", epochs=1, batch=16)
    made = Learner(net(), plan, "classification").learn(stream().train[0])
    with pytest.raises(BadInput, match="3 rows cannot hold 4 values of y; give a size of 4 or more"):
        made.learn(stream().train[1])
    with pytest.raises(BadInput, match="give 1 or more"):
        Buffer(0)
    with pytest.raises(BadInput, match="did you mean 'reservoir'"):
        Buffer(3, policy="reservoirs")


# --- resuming


@pytest.mark.parametrize("method", ["naive", "er", "der_pp", "lwf"])
@pytest.mark.parametrize("at", [3, 20, 31])
def test_a_learner_that_is_killed_goes_on_to_the_same_bits(method: str, at: int, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    steps = 0

    def checkpointed(run: Run, stage: Stage, step: Any) -> None:
        nonlocal steps
        steps += 1
        if steps % 2 == 0:
            run.checkpoint()
        if steps == at:
            raise Killed

    straight = learner(method, upto=3)
    options = {**FAST, **({"buffer": 40} if method in ("er", "der_pp") else {})}
    broken: Learner = ob.learner(net(), method, folder=tmp_path, **options)
    with contextlib.suppress(Killed):
        for experience in stream().train[:3]:
            broken.learn(experience, watch=[checkpointed])
    assert steps == at
    again: Learner = ob.learner(net(), method, folder=tmp_path, **options)
    for experience in stream().train[:3]:
        again.learn(experience)
    assert same(bits(again), bits(straight))
    assert again.ids == straight.ids
    if method in ("er", "der_pp"):
        assert memory(again).ids.tolist() == memory(straight).ids.tolist()
    assert [p.name for p in tmp_path.glob("turn-*")] == ["turn-0003"]


def test_a_head_that_grew_is_there_again_after_a_kill(tmp_path: Path) -> None:
    def make(folder: Path | None) -> Learner:
        return Learner(net(2), methods.er(buffer=20, **FAST), "classification", folder=folder)

    straight, first = make(None), make(tmp_path)
    for experience in stream().train[:2]:
        first.learn(experience)
    again = make(tmp_path)
    for experience in stream().train[:3]:
        straight.learn(experience)
        again.learn(experience)
    assert same(bits(again), bits(straight))
    assert again.problem.journal == straight.problem.journal


def test_a_learner_that_is_behind_says_so(tmp_path: Path) -> None:
    learner(upto=2, folder=tmp_path)
    again: Learner = ob.learner(net(), "er", buffer=40, folder=tmp_path, **FAST)
    assert again.behind
    again.learn(stream().train[0])
    with pytest.raises(BadInput, match="go on with the stream"):
        again.predict(torch.rand(1, 1, 8, 8))
    assert not again.learn(stream().train[1]).behind
    with pytest.raises(BadInput, match="sources"):
        ob.learner(net(), "er", buffer=40, folder=tmp_path, **FAST).learn(stream().train[0]).learn(stream().train[2])


# --- forgetting


def test_forgetting_takes_rows_out_of_every_memory_and_says_where() -> None:
    made = learner("der_pp", upto=3)
    gone = [int(i) for i in memory(made).ids[:4]]
    before = bits(made)
    receipt = made.forget(gone)
    assert not set(gone) & set(memory(made).ids.tolist())
    assert not set(gone) & made.ids
    assert all(not set(gone) & set(s.ids.tolist()) for s in made.problem.sources.values())
    assert same(bits(made), before)
    assert next(p.done for p in receipt.places if p.where == "Buffer replay").endswith("rows removed")
    assert "not changed" in receipt.weights
    assert "not changed" in str(receipt)
    made.learn(stream().train[3])
    assert not set(gone) & set(memory(made).ids.tolist())


def test_forgotten_rows_are_nowhere_in_the_folder(tmp_path: Path) -> None:
    made = learner("er", upto=1, folder=tmp_path)
    row = memory(made).take([0])
    needle = row.data["x"].numpy().tobytes()
    holds = lambda: any(needle in f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())  # noqa: E731
    assert holds()
    made.forget(row.ids.tolist())
    assert not holds()


def test_a_request_is_carried_out_once_also_after_a_kill(tmp_path: Path) -> None:
    made = learner("er", upto=2, folder=tmp_path)
    gone = [int(i) for i in memory(made).ids[:3]]
    receipt = made.forget(gone)
    after = memory(made).ids.tolist()
    again: Learner = ob.learner(net(), "er", buffer=40, folder=tmp_path, **FAST)
    for experience in stream().train[:2]:
        again.learn(experience)
    assert memory(again).ids.tolist() == after
    assert again.forget(gone) == receipt
    assert again.ids == made.ids


@pytest.mark.parametrize("method", ["finetune", "salun"])
def test_the_weights_forget_by_any_method_of_the_registry(method: str) -> None:
    made = learner("er", upto=2)
    rows = stream().train[0].rows.take(range(20))
    before = bits(made)
    receipt = made.forget(rows, method)
    assert not same(bits(made), before)
    assert method in receipt.weights
    assert receipt.guarantee == "empirical"
    held = [int(i) for i in memory(made).ids[:2]]
    assert made.forget(held, method).weights.startswith(f"changed by {method}")


def test_requests_that_no_place_holds_are_refused_before_anything_changes() -> None:
    made = learner("er", upto=1)
    before, held = bits(made), memory(made).ids.tolist()
    absent = sorted(made.ids - set(held))[:2]
    later = [int(i) for i in stream().train[4].rows.ids[:2]]
    for ids, method, words in (
        (later, None, "2 were never learned"),
        ([], None, "there are none"),
        ([held[0], held[0]], None, "more than once"),
        (absent, "salun", "give the rows themselves"),
        (held[:1], "er", "of the kind continual"),
    ):
        with pytest.raises(BadInput, match=words):
            made.forget(ids, method)
    bare = learner("naive", upto=1)
    with pytest.raises(BadInput, match="give retain="):
        bare.forget(stream().train[0].rows.take([0]), "finetune")
    assert same(bits(made), before)
    assert memory(made).ids.tolist() == held


def test_what_was_made_with_the_rows_and_stays_is_listed() -> None:
    plan = Descent(terms.fit("new"), over="new", epochs=1, batch=16, opt=adam(0.01, carry=True)) >> keep("kept")
    made = Learner(net(), plan, "classification").learn(stream().train[0])
    receipt = made.forget([int(stream().train[0].rows.ids[0])])
    assert "snapshot kept" in receipt.kept
    assert any(p.where.startswith("Opt") and p.done == "moments dropped" for p in receipt.places)
