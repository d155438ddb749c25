"""Streams: every row where it belongs, nothing copied, and clear words for what cannot be."""

from __future__ import annotations

import json
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
from oblivio.data.streams.experience import Experience, Stream
from oblivio.sources import Tensors, as_source
from oblivio.sources.chained import Chained
from oblivio.sources.marked import Marked, joined

# --- split


@given(
    classes=st.integers(2, 9),
    order=st.none() | st.integers(0, 99),
    valid=st.sampled_from([0.0, 0.2]),
    scenario=st.sampled_from(["class", "task", "domain"]),
    data_=st.data(),
)
@settings(max_examples=40)
def test_every_row_comes_in_exactly_one_experience(
    classes: int, order: int | None, valid: float, scenario: str, data_: Any
) -> None:
    tasks = data_.draw(st.integers(1, classes if scenario != "domain" else classes - 1))
    of = dataset(classes)
    stream = data.split(of, tasks=tasks, scenario=scenario, order=order, valid=valid, seed=3)
    learned = [i for e in stream.train for i in ids(e)]
    held_out = [i for e in stream.train if e.valid is not None for i in e.valid.ids.tolist()]
    assert sorted(learned + held_out) == list(range(len(of.train)))
    assert bool(held_out) == bool(valid)
    assert sorted(i for e in stream.test for i in ids(e)) == list(range(len(of.test)))
    sizes = [len(e.classes) for e in stream.train]
    assert max(sizes) - min(sizes) <= 1
    for t, (e, test) in enumerate(zip(stream.train, stream.test, strict=True)):
        assert e.task == t == test.task
        assert e.classes == test.classes
        assert set(read(e.rows).tolist()) == set(e.classes)
        assert set(read(e.rows, "task").tolist()) == {t}
        assert set(read(test.rows, "task").tolist()) == {t}


@given(order=st.integers(0, 99), other=st.integers(0, 99))
@settings(max_examples=15)
def test_the_seed_of_the_order_changes_which_classes_come_when_and_nothing_else(order: int, other: int) -> None:
    of = dataset(6)
    a, b = (data.split(of, tasks=3, order=o, valid=0.25, seed=1) for o in (order, other))
    assert {i for e in a.train for i in ids(e)} == {i for e in b.train for i in ids(e)}
    assert same(a, data.split(of, tasks=3, order=order, valid=0.25, seed=1))
    groups = [[e.classes for e in s.train] for s in (a, b)]
    assert same(a, b) == (groups[0] == groups[1])


def test_without_an_order_the_classes_come_as_the_labels_do() -> None:
    stream = data.split(dataset(5), tasks=2)
    assert [e.classes for e in stream.train] == [(0, 1, 2), (3, 4)]
    drawn = {tuple(e.classes for e in data.split(dataset(5), tasks=2, order=o).train) for o in range(8)}
    assert len(drawn) > 3


def test_the_labels_of_each_scenario() -> None:
    of, groups = dataset(5), [(4, 1), (0, 3)]
    plain, own, shared = (data.split(of, tasks=groups, scenario=s) for s in ("class", "task", "domain"))
    for stream in (plain, own):
        assert [e.classes for e in stream.train] == [(1, 4), (0, 3)]
        assert stream.outputs == 5
        assert set(read(stream.train[0].rows).tolist()) == {1, 4}
    assert shared.outputs == 2
    raw, within = read(plain.train[0].rows), read(shared.train[0].rows)
    assert torch.equal(within, (raw == 1).long())  # class 4 is listed first, hence 0
    assert shared.labels is None
    assert set(read(plain.held, "task").tolist()) == {0, 1}


def test_classes_may_be_given_by_name() -> None:
    named = Dataset(**{**vars(dataset(3)), "classes": ("ape", "1", "0")})
    stream = data.split(named, tasks=[("0", "ape"), (1,)])
    assert [e.classes for e in stream.train] == [(0, 2), (1,)]
    assert [e.name for e in stream.train] == ["0, ape", "1"]
    with pytest.raises(BadInput, match="did you mean 'ape'"):
        data.split(named, tasks=[("apes",)])


def test_digits_in_five_tasks_are_what_the_field_has() -> None:
    stream = data.split("digits")
    assert [e.classes for e in stream.train] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    parity = data.split("digits", scenario="domain")
    y = torch.cat([read(e.rows) for e in stream.train])
    assert torch.equal(torch.cat([read(e.rows) for e in parity.train]), y % 2)
    assert stream.labels == tuple("0123456789")
    assert stream.preprocess == "channels"


def test_a_split_of_rows_by_a_request_is_as_before() -> None:
    digits = data.load("digits")
    forget, retain = data.split(digits.train, "class=3", 0, digits.fields)
    assert set(read(forget).tolist()) == {3}
    assert len(forget) + len(retain) == len(digits.train)
    again = data.split(digits.train, request="random=0.1", seed=5, fields=None)
    assert len(again[0]) == 120


def test_a_binary_set_in_classes_has_two_outputs() -> None:
    stream = data.split("breast_cancer", tasks=2)
    assert (stream.outputs, stream.modality) == (2, "classification")
    assert data.permuted("breast_cancer", tasks=2).modality == "binary"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": 7}, "7 tasks of 6 classes; ask for 1 to 6"),
        ({"tasks": 0}, "0 tasks of 6 classes"),
        ({"tasks": [(0, 1), (1, 2)]}, "class 1 is in tasks 0 and 1"),
        ({"tasks": [(0, 0)]}, "class 0 is in task 0 twice"),
        ({"tasks": [(0,), ()]}, "task 1 has no classes"),
        ({"tasks": []}, "empty list"),
        ({"tasks": [(0, 6)]}, "the class 6, and the classes are 0 to 5"),
        ({"tasks": [(0, 1)], "order": 1}, "leave order= out"),
        ({"tasks": "5"}, "give a number"),
        ({"tasks": 2.5}, "give a number"),
        ({"tasks": [0, 1]}, "task 0 is 0; give the list of its classes"),
        ({"tasks": [(0.5,)]}, "the class 0.5, and the classes are 0 to 5"),
        ({"tasks": [("zebra",)]}, "the class 'zebra', which there is not"),
        ({"tasks": 6, "scenario": "domain"}, "nothing to tell apart"),
        ({"scenario": "clas"}, "did you mean 'class'"),
        ({"valid": 1.0}, "no share"),
        ({"valid": -0.1}, "no share"),
        ({"tasks": 6, "valid": 0.01}, "leaves no row"),
    ],
)
def test_bad_splits(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        data.split(dataset(6), **options)


def test_rows_without_classes_are_refused() -> None:
    with pytest.raises(BadInput, match=r"regression.*need|regression.*needs"):
        data.split("diabetes")
    assert data.permuted("diabetes", tasks=2).train[1].classes == ()


def test_a_class_without_rows_is_an_empty_experience() -> None:
    of = dataset(4)
    few = Dataset(**{**vars(of), "train": of.train.take(read(of.train) != 3)})
    with pytest.raises(BadInput, match="experience '3' has no rows to train on"):
        data.split(few, tasks=4)
    none = Dataset(**{**vars(of), "test": of.test.take(read(of.test) != 3)})
    with pytest.raises(BadInput, match="'3' has no test rows"):
        data.split(none, tasks=4)
    nothing = Dataset(**{**vars(of), "train": of.train.take([])})
    with pytest.raises(BadInput, match="no rows to train on"):
        data.split(nothing, tasks=4)


# --- the stream


def test_held_has_all_test_rows_in_order_and_slices_say_where() -> None:
    stream = data.split(dataset(6), tasks=3, order=2)
    assert isinstance(stream.held, Marked)  # one view: a batch over two tasks is read at once
    x = read(stream.held, "x")
    for e, part in zip(stream.test, stream.slices, strict=True):
        assert torch.equal(x[part], read(e.rows, "x"))
    assert stream.held.ids.tolist() == [i for e in stream.test for i in ids(e)]


def test_joint_has_every_training_row_once() -> None:
    of = dataset(6)
    split = data.split(of, tasks=3, valid=0.25)
    assert sorted([*ids(split.joint), *split.joint.valid.ids.tolist()]) == list(range(48))  # type: ignore[union-attr]
    assert split.joint.classes == tuple(range(6))
    assert dict(split.joint.heads) == {0: (0, 1), 1: (2, 3), 2: (4, 5)}
    again = data.recurring(of, experiences=40)
    assert sorted(ids(again.joint)) == list(range(48))
    assert len(data.permuted(of, tasks=3).joint) == 3 * 48  # other inputs: other rows


def test_a_stream_is_described_in_json_and_by_its_name() -> None:
    stream = data.split("digits", scenario="task", order=1, valid=0.1, seed=2)
    facts = json.loads(json.dumps(stream.describe()))
    assert facts["recipe"] == {
        "dataset": "digits", "valid": 0.1, "seed": 2, "scenario": "task", "kind": "split", "order": 1,
        "tasks": facts["recipe"]["tasks"],
    }  # fmt: skip
    assert [set(group) for group in facts["recipe"]["tasks"]] == [set(e["classes"]) for e in facts["train"]]
    assert sum(e["rows"] + e["valid"] for e in facts["train"]) == 1200
    assert repr(stream).startswith("Stream('split-digits', task-incremental, 5 experiences of 5 tasks, 1,080 rows")
    assert "classes" in repr(stream.train[0])
    json.dumps(data.permuted("breast_cancer", tasks=2).describe())  # a table's layout too


def test_a_stream_without_experiences_is_refused() -> None:
    one = data.split(dataset(2), tasks=1)
    with pytest.raises(BadInput, match="no experience to learn from"):
        Stream("s", "class", (), one.test, (1,), 2)
    empty = Experience(one.train[0].rows.take([]), 0, (), "class", None, "nothing")
    with pytest.raises(BadInput, match="'nothing' has no rows"):
        Stream("s", "class", (empty,), one.test, (1,), 2)


# --- nothing is copied


def test_all_views_share_the_tensors_of_the_data_set() -> None:
    of = dataset(6)
    where = of.train.data["x"].data_ptr()  # type: ignore[attr-defined]
    streams = [
        data.split(of, tasks=3, valid=0.25), data.permuted(of, tasks=3), data.blurry(of, tasks=3),
        data.recurring(of, experiences=20), data.online(data.split(of, tasks=3), size=5),
        data.split(data.imbalanced(of, ratio=4), tasks=3),
    ]  # fmt: skip
    for stream in streams:
        for e in (*stream.train, stream.joint):
            for rows in (e.rows, e.rows.take([0]), *([] if e.valid is None else [e.valid])):
                assert isinstance(rows, Marked)
                assert rows.base.data["x"].data_ptr() == where  # type: ignore[attr-defined]
                assert rows.root is of.train.root


def test_hundreds_of_experiences_hold_each_set_of_classes_once() -> None:
    stream = data.recurring(dataset(6), experiences=500)
    assert len(stream) == 500
    assert len({id(e.rows) for e in stream.train}) == stream.tasks == 15


# --- the sources


@given(data_=st.data())
@settings(max_examples=25)
def test_any_batch_of_one_view_of_several_equals_its_rows_one_by_one(data_: Any) -> None:
    stream = data.domains(dataset(4, inputs=(1, 3, 3)), tasks=["identity", "mirrored", "inverted"], scenario="task")
    whole = stream.joint.rows
    at = torch.tensor(data_.draw(st.lists(st.integers(0, len(whole) - 1), max_size=9)), dtype=torch.long)
    batch = whole.batch(at)
    assert len(batch["x"]) == len(batch["y"]) == len(batch["task"]) == len(batch["id"]) == len(at)
    for i, place in enumerate(at.tolist()):
        one = stream.train[place // 32].rows.batch(torch.tensor([place % 32]))
        assert all(torch.equal(batch[n][i], one[n][0]) for n in ("x", "y", "task", "id"))


@given(data_=st.data())
@settings(max_examples=25)
def test_a_chain_reads_what_its_parts_read(data_: Any) -> None:
    parts = [Tensors({"x": torch.arange(a, b).float()}, ids=np.arange(a, b)) for a, b in ((0, 3), (3, 4), (4, 9))]
    chain = Chained(parts)
    assert chain.ids.tolist() == list(range(9))
    at = data_.draw(st.lists(st.integers(0, 8), max_size=12))
    assert chain.batch(torch.tensor(at, dtype=torch.long))["x"].tolist() == at
    view = chain.take([8, 0, 3])
    assert view.batch(torch.tensor([2, 0]))["id"].tolist() == [3, 8]
    assert chain.comparable(view)
    assert "3 rows of 3 sources" in repr(view)


def test_a_chain_has_the_columns_that_all_parts_have() -> None:
    a, b = Tensors({"x": torch.zeros(2), "z": torch.zeros(2)}), Tensors({"x": torch.zeros(2)})
    chain = Chained([a, b])
    assert chain.columns == ("x",)
    with pytest.raises(BadInput, match="no column 'z'"):
        chain.batch(torch.tensor([0]))["z"]
    with pytest.raises(BadInput, match="at least one"):
        Chained([])


def test_a_view_of_marked_rows_keeps_what_they_are() -> None:
    base = Tensors({"x": torch.arange(6.0), "y": torch.tensor([0, 1, 2, 0, 1, 2])})
    table = torch.tensor([[0, 1, 2], [5, 4, 3]])
    rows = Marked(base, [5, 4, 3, 0], task=torch.tensor([0, 1, 1, 0]), table=table)
    assert read(rows).tolist() == [2, 4, 5, 0]
    view = rows.take([1, 3])
    assert (read(view).tolist(), read(view, "task").tolist(), view.ids.tolist()) == ([4, 0], [1, 0], [4, 0])
    assert rows.comparable(base)
    assert rows.comparable(view)
    assert not rows.comparable(Tensors({"x": torch.zeros(2)}))
    assert "4 rows, task of each row" in repr(rows)
    assert rows.to(torch.device("cpu")) is rows


@pytest.mark.parametrize("several", [False, True])
def test_rows_move_to_a_device_with_their_labels_and_tasks(several: bool) -> None:
    of = dataset(4)
    stream = data.in_turn([of, of], scenario="domain") if several else data.permuted(of, tasks=2, scenario="task")
    source = stream.held if several else stream.train[1].rows
    moved = source.to(torch.device("meta"))
    batch = moved.batch(torch.tensor([0, 20]))
    assert {batch[n].device.type for n in ("x", "y", "task")} == {"meta"}
    assert batch["x"].shape == (2, 1, 4, 4)
    assert moved.ids.tolist() == source.ids.tolist()
    if isinstance(moved, Marked):
        assert moved.base is stream.train[0].rows.to(torch.device("meta")).base  # type: ignore[attr-defined]
    assert source.batch(torch.tensor([0]))["x"].device.type == "cpu"


def test_views_of_different_rows_are_not_joined() -> None:
    a, b = (Marked(Tensors({"x": torch.zeros(2), "y": torch.zeros(2).long()})) for _ in range(2))
    with pytest.raises(BadInput, match="same source"):
        joined([a, b])
    with pytest.raises(BadInput, match="same source"):
        joined([])


def test_an_item_of_a_dataset_is_marked_too() -> None:
    """A source that makes all columns at once: labels are numbered anew, and its own column task gives way."""
    items = [{"x": torch.full((1, 2, 2), float(i)), "y": i % 3, "task": 9} for i in range(9)]
    rows = as_source(items)
    of = Dataset("items", rows, as_source(items), "classification", (1, 2, 2), 3)
    stream = data.split(of, tasks=[(2,), (1, 0)], scenario="domain")
    batch = stream.train[1].rows.batch(torch.arange(2))
    assert batch["x"].flatten(1)[:, 0].tolist() == [0, 1]
    assert (batch["y"].tolist(), batch["task"].tolist()) == ([1, 0], [1, 1])
