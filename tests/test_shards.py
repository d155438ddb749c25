"""Orders of slices, where rows lie, what a request trains and drops, and Ray."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import mlp, rows
from torch import nn

from oblivio import networks, terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage, operate
from oblivio.learners._orders import DELETIONS, matched, prefix, rotations
from oblivio.learners.s3t import groups, s3t
from oblivio.learners.shards import Sharded
from oblivio.learners.sisa import sisa
from oblivio.modules.heads import widen_head

X, Y = rows(24, 6)


def stage(k: int) -> Stage:
    return Descent(terms.fit("train"), epochs=1, batch=8)


def by_number(name: Any) -> tuple[int, int]:
    """Of three slices and two shards."""
    return int(name) % 2, int(name) // 2 % 3


def sharded(**settings: Any) -> Sharded:
    torch.manual_seed(0)
    given = {"shards": 2, "slices": 3, "workers": 1, "assign": by_number, **settings}
    return Sharded(mlp(), stage, **given)


def full(**settings: Any) -> Sharded:
    learner = sharded(**settings)
    learner.learn((X, Y))
    return learner


# --- orders


def test_a_prefix_ends_before_the_first_touched_slice() -> None:
    assert prefix((2, 0, 1), {1}) == 2
    assert prefix((2, 0, 1), {0, 1}) == 1
    assert prefix((2, 0, 1), {2}) == 0
    assert prefix((2, 0, 1), set()) == 3


def test_rotations_have_leaders_of_their_own() -> None:
    assert rotations(3, 3) == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    assert rotations(6, 2) == [(0, 1, 2, 3, 4, 5), (3, 4, 5, 0, 1, 2)]
    assert rotations(3, 5) == [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2)]
    assert rotations(1, 1) == [(0,)]
    for budget in (0, 7):
        with pytest.raises(BadInput, match="from 1 to 6 differ"):
            rotations(3, budget)


@given(slices=st.integers(1, 6), data=st.data())
def test_rotations_differ_and_are_orders(slices: int, data: st.DataObject) -> None:
    budget = data.draw(st.integers(1, max(slices * (slices - 1), 1)))
    found = rotations(slices, budget)
    assert len(set(found)) == budget
    assert all(sorted(order) == list(range(slices)) for order in found)
    assert len({order[0] for order in found}) == min(budget, slices)


@settings(deadline=None)
@given(weights=st.lists(st.floats(0, 1), min_size=2, max_size=4), data=st.data())
def test_each_place_of_matched_orders_is_the_best_matching(weights: list[float], data: st.DataObject) -> None:
    """Against all matchings, with rates small enough that scores do not vanish."""
    q = np.array(weights) / 400
    n = len(q)
    orders = matched(q.tolist(), n)
    assert sorted(order[0] for order in orders) == list(range(n))
    place = data.draw(st.integers(0, n - 1))
    gain = lambda order, j: (place + 1) * (1 - q[[*order[:place], j]].sum()) ** DELETIONS  # noqa: E731
    mine = sum(gain(order, order[place]) for order in orders)
    best = max(
        sum(gain(order, j) for order, j in zip(orders, each, strict=True))
        for each in itertools.permutations(range(n))
        if all(j not in order[:place] for order, j in zip(orders, each, strict=True))
    )
    assert mine == pytest.approx(best)


def test_of_matched_orders_the_safest_are_taken() -> None:
    (order,) = matched([0.02, 0.001, 0.005], 1)
    assert order[0] == 1  # the slice from which least is deleted leads
    with pytest.raises(BadInput, match="one order a slice at most"):
        matched([0.1, 0.1], 3)
    with pytest.raises(BadInput, match="a sum of at most 1"):
        matched([0.9, 0.9], 1)


# --- where rows lie


def test_shards_and_slices_are_drawn_evenly_by_seed_and_id_alone() -> None:
    learner = sharded(shards=4, slices=3, assign=None)
    counts = np.zeros((4, 3))
    for i in range(6000):
        counts[learner.place(i)] += 1
    assert abs(counts / 500 - 1).max() < 0.2
    assert learner.place("a") == sharded(shards=4, slices=3, assign=None).place("a")
    other = sharded(shards=4, slices=3, assign=None, seed=1)
    assert [learner.place(i) for i in range(30)] != [other.place(i) for i in range(30)]


# --- what a request does


def test_a_request_trains_one_shard_from_the_slice_it_touches() -> None:
    learner = full()
    stages = Path(learner.folder.path, "files")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in stages.iterdir()}
    receipt = learner.forget([2])  # shard 0, slice 1; each slice has 4 rows
    assert receipt.retrained == ["shard 0, order 0, stages 1 to 2"]
    assert receipt.rows == 7 + 11
    assert receipt.dropped == []
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in stages.iterdir()}
    assert len(after) == len(before) == 6 + 6
    assert len(before.keys() & after.keys()) == 5 + 4
    assert all(after[name] == before[name] for name in before.keys() & after.keys())


def test_a_stage_sees_the_slices_up_to_its_own() -> None:
    assert full().learn((X, Y, range(100, 124))).rows == 2 * (8 + 16 + 24)


def test_stages_are_dropped_until_nothing_is_left() -> None:
    learner = full(orders=rotations(3, 2), retrain="exhausted")  # (0, 1, 2) and (1, 2, 0)
    assert learner.served == [(0, 0, 3), (1, 0, 3)]
    receipt = learner.forget([0])  # shard 0, slice 0
    assert (receipt.rows, receipt.retrained) == (0, [])
    assert receipt.dropped == ["shard 0, order 0, stages 0 to 2", "shard 0, order 1, stages 2 to 2"]
    assert learner.served == [(0, 1, 2), (1, 0, 3)]
    receipt = learner.forget([2])  # slice 1 leads what is left
    assert receipt.retrained == ["shard 0, order 0, stages 0 to 2", "shard 0, order 1, stages 0 to 2"]
    assert learner.served == [(0, 0, 3), (1, 0, 3)]


def test_never_means_when_asked() -> None:
    learner = full(retrain="never")
    learner.forget([0])
    assert learner.served == [(1, 0, 3)]
    learner.forget([1])
    with pytest.raises(BadInput, match=r"retrain\(\)"):
        learner.predict(X)
    receipt = learner.retrain()
    assert receipt.retrained == ["shard 0, order 0, stages 0 to 2", "shard 1, order 0, stages 0 to 2"]
    assert torch.equal(learner.predict(X), _anew([0, 1]).predict(X))


def _anew(gone: list[int]) -> Sharded:
    learner, rest = sharded(), [i for i in range(24) if i not in gone]
    learner.learn((X[rest], Y[rest], rest))
    return learner


def test_a_shard_or_slice_without_rows_serves_nothing() -> None:
    learner = full()
    learner.forget(list(range(0, 24, 2)))  # the whole of shard 0
    assert learner.served == [(1, 0, 3)]
    assert torch.equal(learner.predict(X), _anew(list(range(0, 24, 2))).predict(X))
    lazy = full(retrain="exhausted")
    lazy.forget([1, 7, 13, 19])  # slice 0 of shard 1
    assert lazy.served == [(0, 0, 3), (1, 0, 3)]
    lazy.forget([3])  # then slice 1: stage 0 is left, and has seen no row
    assert lazy.served == [(0, 0, 3), (1, 0, 3)]
    assert torch.equal(lazy.predict(X), _anew([1, 3, 7, 13, 19]).predict(X))


def test_the_mean_of_outputs_is_served() -> None:
    learner = full()
    with torch.no_grad():
        outs = [learner.model(*at)(X) for at in learner.served]
    assert torch.allclose(learner.predict(X), (outs[0] + outs[1]) / 2)
    first = full(serve=lambda models, predict: predict(models[0]))
    assert torch.allclose(first.predict(X), outs[0])


def test_what_was_trained_before_a_kill_is_not_trained_again(tmp_path: Path) -> None:
    full(folder=tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    sharded().load(tmp_path / "b").forget([2])
    for path in (tmp_path / "b" / "files").iterdir():  # as if the pointer had not been switched
        if not (tmp_path / "a" / "files" / path.name).exists():
            shutil.copy(path, tmp_path / "a" / "files")
    receipt = sharded().load(tmp_path / "a").forget([2])
    assert (receipt.rows, receipt.retrained) == (0, [])


def test_a_training_that_fails_leaves_the_learner_as_it_was() -> None:
    rate = [0.01]
    learner = Sharded(mlp(), lambda k: Descent(terms.fit("train"), opt=sgd(rate[0]), epochs=60, batch=4), shards=1,
                      slices=1, workers=1)  # fmt: skip
    learner.learn((X, Y))
    before = learner.predict(X)
    rate[0] = float("nan")
    with pytest.raises(Stopped, match="learning rate"):
        learner.forget([0])
    assert len(learner.ids) == 24
    assert torch.equal(learner.predict(X), before)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\(0, 0, 1\) does not name each of the 3 slices once"):
        sharded(orders=[(0, 0, 1)])
    full(folder=tmp_path)
    with pytest.raises(BadInput, match="holds a learner already"):
        sharded(folder=tmp_path)
    with pytest.raises(BadInput, match="was made with shards = 2; this learner has 3"):
        sharded(shards=3).load(tmp_path)
    with pytest.raises(BadInput, match="3 stages of order 0, not 4"):
        full().model(0, 0, 4)
    grown = Sharded(mlp(), lambda k: operate(widen_head, layer="2", by=1, seed=0), shards=1, slices=1, workers=1)
    with pytest.raises(BadInput, match="changes the structure"):
        grown.learn((X, Y))


# --- s3t


def test_layers_are_grouped_from_the_top() -> None:
    net = networks.build("mlp", (6,), 4, hidden=(8,) * 5)
    assert groups(net, 2, (), "*") == (
        "model.hidden5.* model.hidden4.* model.hidden3.* model.head.*",
        "model.hidden2.* model.hidden1.* model.head.*",
    )
    assert groups(net, 1, ("hidden1",), "weight") == ("model.hidden1.weight model.head.*",)
    vit = networks.build("vit-tiny", (1, 8, 8), 4, width=8, depth=2, heads=2, patch=4)
    assert groups(vit, 2, (), "*") == ("model.blocks.1.* model.head.*", "model.blocks.0.* model.head.*")
    with pytest.raises(BadInput, match="6 slices need as many layers below the head; there are 5"):
        groups(net, 6, (), "*")


def test_a_stage_moves_its_own_layers_and_the_head() -> None:
    net = networks.build("mlp", (6,), 4, hidden=(8, 8))
    learner = s3t(shards=1, slices=2, budget=1, lr=1e-2)(net, workers=1)
    learner.learn((X, Y))
    moved = lambda a, b: {n for n, p in a.named_parameters() if not torch.equal(p, b.get_parameter(n))}  # noqa: E731
    first, second = learner.model(0, 0, 1), learner.model(0, 0, 2)
    assert moved(net, first) == {"hidden2.weight", "hidden2.bias", "head.weight", "head.bias"}
    assert moved(first, second) == {"hidden1.weight", "hidden1.bias", "head.weight", "head.bias"}


def test_orders_come_from_the_budget_or_from_known_rates() -> None:
    net = networks.build("mlp", (6,), 4, hidden=(8, 8, 8))
    assert s3t(slices=3, budget=3)(net).orders == tuple(rotations(3, 3))
    rates = (0.02, 0.001, 0.005)
    assert s3t(slices=3, budget=2, rates=rates)(net).orders == tuple(matched(rates, 2))
    with pytest.raises(BadInput, match="budget"):
        s3t(budget=0)


# --- Ray


@pytest.mark.filterwarnings("ignore")
def test_workers_of_ray_give_the_same_bits() -> None:
    ray = pytest.importorskip("ray")
    net = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 4))
    here, there = (sisa(shards=2, slices=2, epochs=3)(net, workers=workers) for workers in (1, 2))
    try:
        here.learn((X, Y))
        there.learn((X, Y))
        assert ray.is_initialized()
        for learner in (here, there):
            learner.forget([0, 1, 2, 3, 4, 5])
        assert here.served == there.served
        assert torch.equal(here.predict(X), there.predict(X))
    finally:
        ray.shutdown()
