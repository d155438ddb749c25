"""Streams without sharp boundaries, in small pieces, out of balance, and of recurring classes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from streaming import dataset, ids, read, same

from oblivio import data
from oblivio.core.errors import BadInput
from oblivio.data.dataset import Dataset
from oblivio.data.streams.experience import Stream
from oblivio.data.streams.recurring import _weights


def homes(stream: Stream) -> list[Counter[int]]:
    """Of every experience how many rows belong to each task."""
    return [Counter(read(e.rows, "task").tolist()) for e in stream.train]


def each_once(stream: Stream, of: Dataset) -> bool:
    return sorted(i for e in stream.train for i in ids(e)) == list(range(len(of.train)))


# --- blurry


@given(share=st.floats(0, 1), tasks=st.sampled_from([2, 3, 6]), seed=st.integers(0, 9))
@settings(max_examples=30)
def test_the_share_of_foreign_rows_is_as_asked(share: float, tasks: int, seed: int) -> None:
    of = dataset(6, each=10)
    stream = data.blurry(of, tasks=tasks, share=share, seed=seed)
    assert each_once(stream, of)
    leaving = round(share * 60 / tasks)
    for t, found in enumerate(homes(stream)):
        assert found[t] == 60 // tasks - leaving
        spread = [found[other] for other in range(tasks) if other != t]
        assert max(spread) - min(spread) <= 1
    assert sum(sum(found.values()) - found[t] for t, found in enumerate(homes(stream))) == tasks * leaving


def test_blurry_without_a_share_is_a_split_and_tests_are_those_of_the_split() -> None:
    of = dataset(6)
    sharp, none, some = (
        data.split(of, tasks=3),
        data.blurry(of, tasks=3, share=0.0),
        data.blurry(of, tasks=3, share=0.5),
    )
    assert same(sharp, none)
    assert [ids(e) for e in some.test] == [ids(e) for e in sharp.test]
    assert not some.boundaries
    assert sharp.boundaries


def test_a_foreign_row_knows_the_task_of_its_class() -> None:
    stream = data.blurry(dataset(4), tasks=2, share=0.5, scenario="task")
    for e in stream.train:
        assert torch.equal(read(e.rows, "task"), read(e.rows) // 2)
        assert dict(e.heads) == {0: (0, 1), 1: (2, 3)}
    shared = data.blurry(dataset(4), tasks=2, share=0.5, scenario="domain")
    assert shared.outputs == 2
    assert set(read(shared.train[0].rows).tolist()) == {0, 1}


def test_blurred_classes_that_no_task_has_stay_out() -> None:
    stream = data.blurry(dataset(6), tasks=[(0, 1), (4,)], share=0.5)
    assert {c for e in stream.train for c in e.classes} == {0, 1, 4}
    assert sum(map(len, stream.train)) == 24


@given(
    tasks=st.integers(1, 6),
    disjoint=st.floats(0, 1),
    share=st.floats(0, 1),
    order=st.integers(0, 9),
    seed=st.integers(0, 9),
)
@settings(max_examples=40)
def test_si_blurry_keeps_disjoint_classes_in_their_task(
    tasks: int, disjoint: float, share: float, order: int, seed: int
) -> None:
    of = dataset(6)
    stream = data.si_blurry(of, tasks=tasks, disjoint=disjoint, share=share, order=order, seed=seed)
    assert each_once(stream, of)
    groups = [e.classes for e in stream.test]
    assert sorted(c for g in groups for c in g) == list(range(6))
    moved = {int(c) for t, e in enumerate(stream.train) for c in set(read(e.rows).tolist()) - set(groups[t])}
    assert len(moved) <= 6 - round(disjoint * 6)
    strangers = sum(sum(n for h, n in found.items() if h != t) for t, found in enumerate(homes(stream)))
    assert strangers <= round(share * 8 * (6 - round(disjoint * 6)))
    assert [len(e) for e in stream.train] == [8 * len(g) for g in groups]  # as many come as go


def test_si_blurry_moves_rows_and_draws_sizes() -> None:
    streams = [data.si_blurry(dataset(10), tasks=3, share=0.5, order=o) for o in range(6)]
    assert len({tuple(len(e.classes) for e in s.test) for s in streams}) > 2
    assert any(len(found) > 1 for s in streams for found in homes(s))
    assert len(data.si_blurry(dataset(40, each=1), tasks=40).train) == 40  # one class each is all that can be


# --- sliding


def test_tasks_slide_into_each_other() -> None:
    of = dataset(6, each=200)
    stream = data.sliding(of, tasks=3, width=0.5)
    assert each_once(stream, of)
    assert len(stream) == 12
    sizes = [len(e) for e in stream.train]
    assert max(sizes) - min(sizes) <= 1
    shares = np.array([[found[t] / sum(found.values()) for t in range(3)] for found in homes(stream)])
    # A row of task t has the time t + width * N(0, 1): with three tasks the middle one is most frequent in the middle.
    assert shares[0, 0] > 0.9
    assert shares[-1, 2] > 0.9
    assert shares[:, 1].argmax() in (4, 5, 6, 7)
    assert 0.2 < shares[4, 0] + shares[3, 1] < 1.2
    assert all(e.task == int(np.argmax(row)) for e, row in zip(stream.train, shares, strict=True))


def test_the_times_of_rows_are_normal_around_their_task() -> None:
    """With two tasks at times 0 and 1 the first half in time holds P(z < 0.5 / width) of task 0."""
    stream = data.sliding(dataset(2, each=4000), tasks=2, experiences=2, width=0.5)
    first = homes(stream)[0]
    assert first[0] / 4000 == pytest.approx(0.8413, abs=0.02)


def test_without_a_width_boundaries_are_sharp() -> None:
    of = dataset(6)
    sliding, sharp = data.sliding(of, tasks=3, experiences=3, width=0.0), data.split(of, tasks=3)
    assert [ids(e) for e in sliding.train] == [ids(e) for e in sharp.train]


# --- online


@given(size=st.integers(1, 30), valid=st.sampled_from([0.0, 0.25]))
@settings(max_examples=20)
def test_online_brings_every_row_once_in_pieces(size: int, valid: float) -> None:
    of = dataset(6)
    whole = data.split(of, tasks=3, valid=valid)
    stream = data.online(whole, size=size)
    assert Counter(i for e in stream.train for i in ids(e)) == Counter(i for e in whole.train for i in ids(e))
    for task in range(3):
        sizes = [len(e) for e in stream.train if e.task == task]
        assert all(n == size for n in sizes[:-1])
        assert 1 <= sizes[-1] <= size
    for e in stream.train:
        assert set(e.classes) == set(read(e.rows).tolist())
        assert e.valid is whole.train[e.task].valid
    assert stream.test is whole.test
    assert not stream.boundaries
    drawn = [i for e in stream.train if e.task == 0 for i in ids(e)]
    assert drawn != sorted(drawn)


def test_pieces_of_a_blurry_stream_know_their_tasks() -> None:
    stream = data.online(data.blurry(dataset(4), tasks=2, share=0.5, scenario="task"), size=3)
    for e in stream.train:
        pairs = {(t, c) for t, classes in e.heads.items() for c in classes}
        assert pairs == set(zip(read(e.rows, "task").tolist(), read(e.rows).tolist(), strict=True))


# --- imbalanced


@given(ratio=st.floats(1, 200), order=st.none() | st.integers(0, 9))
@settings(max_examples=25)
def test_classes_fall_off_by_the_ratio(ratio: float, order: int | None) -> None:
    of = dataset(5, each=40)
    tail = data.imbalanced(of, ratio=ratio, order=order)
    counts = np.bincount(read(tail.train), minlength=5)
    assert sorted(counts.tolist(), reverse=True) == [max(1, round(40 * ratio ** (-r / 4))) for r in range(5)]
    assert order is not None or counts.tolist() == sorted(counts.tolist(), reverse=True)
    assert tail.test is of.test
    assert "long tail" in tail.notes[-1]
    assert set(tail.train.ids.tolist()) <= set(of.train.ids.tolist())


# --- recurring


def drawn(**options: Any) -> list[set[int]]:
    stream = data.recurring(dataset(6), **{"experiences": 400, **options})
    return [set(e.classes) for e in stream.train]


def test_recurring_experiences_have_all_rows_of_some_classes() -> None:
    of = dataset(6)
    stream = data.recurring(of, experiences=60, classes=3, order=4)
    numbers: dict[tuple[int, ...], int] = {}
    for e in stream.train:
        assert len(e.classes) == 3
        assert sorted(ids(e)) == [i for i in range(48) if i % 6 in e.classes]
        assert torch.equal(read(e.rows, "task"), read(e.rows))  # every class is a task, with a test of its own
        assert e.task == numbers.setdefault(e.classes, len(numbers))
    assert [e.classes for e in stream.test] == [(c,) for c in range(6)]
    assert same(stream, data.recurring(of, experiences=60, classes=3, order=4))
    assert not same(stream, data.recurring(of, experiences=60, classes=3, order=5))


def test_uniform_classes_come_equally_often() -> None:
    counts = Counter(c for classes in drawn(experiences=3000) for c in classes)
    assert all(abs(n - 1000) < 5 * 26 for n in counts.values())  # deviation of 3000 draws of 1/3: 26


def test_skewed_probabilities_are_those_of_the_paper() -> None:
    raised = ((1 - 0.05 * np.arange(10)) / 10) ** 2
    raised /= raised.sum()
    found = _weights(10, "skewed", 0.05, 2.0, 0)
    np.testing.assert_allclose(np.sort(found), np.sort(raised))
    counts = Counter(
        c for (c,) in (tuple(s) for s in drawn(classes=1, probability="skewed", power=8.0, experiences=2000))
    )
    expected = _weights(6, "skewed", 0.05, 8.0, 0)
    np.testing.assert_allclose([counts[c] / 2000 for c in range(6)], expected, atol=0.05)


def test_a_share_is_resampled_and_the_rest_is_a_cycle() -> None:
    cycle = drawn(resampled=0.0, classes=2, experiences=30)
    assert cycle[:3] * 10 == cycle
    assert set.union(*cycle[:3]) == set(range(6))
    half, free = (drawn(resampled=r, experiences=300) for r in (0.3, 1.0))
    kept, chance = (np.mean([len(a & b) / 2 for a, b in zip(cycle * 10, found, strict=True)]) for found in (half, free))
    assert 0.28 < chance < 0.39  # two of six at random: 1/3
    assert 0.7 < kept < 0.85  # 0.7 stay, and of the others some come back by chance


def test_phases() -> None:
    dropped, two = (drawn(phases=p) for p in ("drop", "two"))
    first, second = (set.union(*part) for part in (dropped[:200], dropped[200:]))
    assert first == set(range(6))
    assert len(second) == 3
    before, after = (set.union(*part) for part in (two[:200], two[200:]))
    assert before | after == set(range(6))
    assert not before & after


def test_a_fixed_list_of_sets() -> None:
    sets = [(0, 1), (2, 3), (1, 4)]
    assert {tuple(sorted(s)) for s in drawn(sets=sets)} == set(sets)
    cycle = drawn(sets=sets, resampled=0.0, experiences=6)
    assert cycle[:3] == cycle[3:]


def test_corrupted_experiences_have_changes_of_their_own_and_tests_have_none() -> None:
    of = dataset(3, inputs=(1, 3, 3))
    stream = data.recurring(of, experiences=40, classes=3, corrupted=True)
    seen = {read(e.rows, "x").sum().item() for e in stream.train}
    assert len(seen) >= 4
    plain = of.test.batch(torch.arange(9))
    assert torch.equal(read(stream.test[1].rows, "x"), plain["x"][plain["y"] == 1])


def test_recurring_validation_rows_are_never_trained_on() -> None:
    stream = data.recurring(dataset(6), experiences=50, valid=0.25)
    learned = {i for e in stream.train for i in ids(e)}
    held = {i for e in stream.train if e.valid is not None for i in e.valid.ids.tolist()}
    assert not learned & held
    assert learned | held == set(range(48))


# --- what cannot be


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (data.blurry, {"tasks": 1}, "at least two tasks"),
        (data.blurry, {"tasks": 3, "share": 1.1}, "share=1.1 is no share"),
        (data.blurry, {"tasks": [(0, 1), (1,)]}, "class 1 is in tasks 0 and 1"),
        (data.si_blurry, {"tasks": 7}, "ask for 1 to 6"),
        (data.si_blurry, {"disjoint": -1}, "disjoint=-1"),
        (data.sliding, {"width": -1}, "no deviation"),
        (data.sliding, {"width": float("nan")}, "no deviation"),
        (data.sliding, {"experiences": 49}, "49 experiences of 48 rows"),
        (data.imbalanced, {"ratio": 0.5}, "a number from 1"),
        (data.imbalanced, {"ratio": float("nan")}, "a number from 1"),
        (data.recurring, {"experiences": 0}, "at least 1"),
        (data.recurring, {"classes": 7}, "ask for 1 to 6"),
        (data.recurring, {"classes": 4, "phases": "two"}, "ask for 1 to 3"),
        (data.recurring, {"phases": "both"}, "is unknown"),
        (data.recurring, {"probability": "skew"}, "did you mean 'skewed'"),
        (data.recurring, {"probability": "skewed", "factor": 0.3}, "give less than 0.2"),
        (data.recurring, {"resampled": 2}, "no probability"),
        (data.recurring, {"sets": [(0, 9)]}, "the class 9"),
        (data.recurring, {"sets": [()]}, "set 0 has no classes"),
        (data.recurring, {"sets": [(1, 1)]}, "no class twice"),
    ],
)
def test_bad_input(make: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make(dataset(6), **options)


def test_more_bad_input() -> None:
    with pytest.raises(BadInput, match="needs images"):
        data.recurring(dataset(3, inputs=(4,)), corrupted=True)
    with pytest.raises(BadInput, match="at least 1"):
        data.online(data.split(dataset(2), tasks=1), size=0)
