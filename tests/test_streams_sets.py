"""Streams of several data sets, of benchmarks, of tables with a column that names the experience, and by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from streaming import dataset, ids, read, same
from torch.utils.data import Dataset as Map
from torch.utils.data import Subset

from oblivio import data
from oblivio.core.errors import BadInput
from oblivio.data.dataset import Dataset
from oblivio.data.streams import named
from oblivio.sources.chained import Chained
from oblivio.sources.marked import Marked

# --- several data sets


def test_sets_come_in_turn_with_outputs_of_their_own() -> None:
    a, b = dataset(3), dataset(4)
    for scenario in ("class", "task"):
        stream = data.in_turn([a, b], scenario=scenario)
        assert stream.outputs == 7
        assert [e.classes for e in stream.train] == [(0, 1, 2), (3, 4, 5, 6)]
        assert torch.equal(read(stream.train[1].rows), read(b.train) + 3)
        assert set(read(stream.train[1].rows, "task").tolist()) == {1}
    shared = data.in_turn([a, b], scenario="domain")
    assert (shared.outputs, shared.modality) == (4, "classification")
    assert [e.classes for e in shared.train] == [(0, 1, 2), (0, 1, 2, 3)]


def test_ids_name_one_record_whichever_set_it_is_from() -> None:
    a, b = dataset(3), dataset(4)
    stream = data.in_turn([a, b])
    assert stream.train[0].rows.ids[:2].tolist() == ["rows#1:0", "rows#1:1"]
    assert stream.train[1].rows.batch(torch.tensor([3]))["id"].tolist() == ["rows#2:3"]
    assert isinstance(stream.held, Chained)
    assert len(set(stream.joint.rows.ids.tolist())) == len(a.train) + len(b.train)
    assert stream.test[0].rows.ids[0] == "rows#1 test:0"  # another record than the training row of that number
    rows = [e.rows for e in (*stream.train, *stream.test)]
    assert all(p.comparable(q) for p in rows for q in rows)
    assert not rows[0].comparable(data.in_turn([a, b]).train[1].rows)  # another naming
    assert not rows[0].comparable(a.train)
    assert not data.split(a, tasks=3).train[0].rows.comparable(rows[0])
    twice = data.in_turn([a, a], scenario="domain")  # the same records: the same ids
    assert ids(twice.train[0]) == ids(twice.train[1]) == list(range(24))
    given = [((torch.zeros(2, 3), torch.tensor([0, 1]), [k, k + 1]),) * 2 for k in (0, 5)]
    assert [ids(e) for e in data.in_turn(given).train] == [[0, 1], [5, 6]]


def test_the_rows_of_a_set_are_shared() -> None:
    a = dataset(3)
    rows = data.in_turn([a, dataset(2)]).train[0].rows
    assert isinstance(rows, Marked)
    assert rows.base is a.train


def test_rows_of_several_sets_are_read_in_one_batch() -> None:
    stream = data.in_turn([dataset(3), dataset(4)], scenario="class")
    batch = stream.held.batch(torch.tensor([10, 0, 9, 1]))
    assert batch["x"][:, 0, 0, 0].tolist() == [1001, 1000, 1000, 1001]
    assert batch["y"].tolist() == [4, 0, 3, 1]
    assert batch["task"].tolist() == [1, 0, 1, 0]
    assert batch["id"].tolist() == [f"rows#{i} test:{j}" for i, j in ((2, 1), (1, 0), (2, 0), (1, 1))]


def test_any_list_of_the_users_sets() -> None:
    class Rows(Map[Any]):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, i: int) -> Any:
            return torch.full((3,), float(i)), i % 3

    pairs = [(Rows(), Rows()), ((np.zeros((4, 3), np.float32), np.array([0, 1, 2, 3])),) * 2]
    stream = data.in_turn(pairs, scenario="class", valid=0.25)
    assert [e.classes for e in stream.train] == [(0, 1, 2), (3, 4, 5, 6)]
    assert [e.name for e in stream.train] == ["set 0", "set 1"]
    assert data.in_turn(pairs, scenario="domain").outputs == 4
    two = (torch.randn(6, 3), torch.arange(6) % 2)
    mixed, both = (data.in_turn([(two, two), other], scenario="domain") for other in (pairs[0], (two, two)))
    assert (mixed.modality, mixed.outputs) == ("classification", 3)
    assert (both.modality, both.outputs) == ("binary", 1)
    y = torch.arange(6).float()
    numbers = [((torch.randn(6, 2), y), (torch.randn(6, 2), y))] * 2
    assert data.in_turn(numbers, scenario="domain").modality == "regression"


@pytest.mark.parametrize(
    ("sets", "options", "said"),
    [
        ([], {}, "no data sets"),
        (
            [dataset(3), dataset(3, inputs=(2,))],
            {},
            r"'rows#1' has inputs of the shape \(1, 4, 4\) and 'rows#2' \(2,\)",
        ),
        ([dataset(3), 3], {}, "set 1 is a int"),
        (["digit"], {}, "did you mean 'digits'"),
        ([dataset(3)], {"scenario": "tsk"}, "did you mean 'task'"),
        ([dataset(3), dataset(3, task="regression", outputs=1)], {"scenario": "domain"}, "targets for"),
        ([dataset(3, task="regression", outputs=1)], {"scenario": "task"}, "no one class"),
        (
            [dataset(3, preprocess=data.Layout((0, 2))), dataset(3, preprocess=data.Layout((2, 0)))],
            {},
            "different kinds",
        ),
    ],
)
def test_sets_that_do_not_go_together(sets: list[Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        data.in_turn(sets, **options)


# --- benchmarks


class Images(Map[Any]):
    """Items as those of Avalanche: (x, y, task label). Counts how many were made."""

    def __init__(self, labels: list[int], task: int = 0, targets: bool = True) -> None:
        self.labels, self.task, self.made = labels, task, 0
        if targets:
            self.targets = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Any:
        self.made += 1
        return torch.full((1, 2, 2), float(i)), self.labels[i], self.task


def benchmark(groups: list[list[int]], tasks: list[int] | None = None, each: int = 4, **options: Any) -> Any:
    def stream(many: int) -> list[Any]:
        return [
            SimpleNamespace(dataset=Images(g * many, t, **options), task_label=t, classes_in_this_experience=g)
            for g, t in zip(groups, tasks or [0] * len(groups), strict=True)
        ]

    return SimpleNamespace(train_stream=stream(each), test_stream=stream(2))


def test_a_benchmark_in_classes() -> None:
    stream = data.from_benchmark(benchmark([[3, 0], [1, 2]]))
    assert (stream.scenario, stream.outputs) == ("class", 4)
    assert [e.classes for e in stream.train] == [(0, 3), (1, 2)]
    assert [e.task for e in stream.test] == [0, 1]
    assert read(stream.train[1].rows).tolist() == [1, 2] * 4
    assert len(set(stream.joint.rows.ids.tolist())) == 16
    assert stream.train[1].rows.ids[0] == "1:0"


def test_a_benchmark_whose_tasks_count_their_classes_anew() -> None:
    made = data.from_benchmark(benchmark([[0, 1], [0, 1], [0, 1]], tasks=[5, 7, 5]))
    assert (made.scenario, made.outputs) == ("task", 4)
    assert [e.task for e in made.train] == [0, 1, 0]
    assert [e.classes for e in made.train] == [(0, 1), (2, 3), (0, 1)]
    apart = data.from_benchmark(benchmark([[0, 1], [2, 3]], tasks=[0, 1]))
    assert [e.classes for e in apart.train] == [(0, 1), (2, 3)]
    assert apart.outputs == 4


def test_a_benchmark_in_domains_and_what_overrules_it() -> None:
    made = data.from_benchmark(benchmark([[0, 1, 2], [0, 1, 2]]))
    assert (made.scenario, made.outputs) == ("domain", 3)
    with pytest.raises(BadInput, match="class 0 is in the experiences train 0 and train 1"):
        data.from_benchmark(benchmark([[0, 1], [0, 2]]), scenario="class")


def test_labels_are_taken_from_targets_and_items_stay_unmade() -> None:
    made = benchmark([[0, 1], [2, 3]], each=200)
    stream = data.from_benchmark(made, valid=0.2)
    assert made.train_stream[0].dataset.made < 100  # the first rows, to learn what an item is
    assert stream.train[0].valid is not None
    assert len(stream.train[0].valid) == 80
    without = data.from_benchmark(benchmark([[0, 1], [2, 3]], targets=False))
    assert [e.classes for e in without.train] == [(0, 1), (2, 3)]


def test_experiences_that_are_subsets_of_one_dataset_share_its_ids() -> None:
    whole = Images([0, 1, 2, 3] * 3)
    parts = [SimpleNamespace(dataset=Subset(whole, [i for i in range(12) if i % 4 in g])) for g in ((0, 1), (2, 3))]
    stream = data.from_benchmark(SimpleNamespace(train_stream=parts, test_stream=parts))
    assert ids(stream.train[1]) == [2, 3, 6, 7, 10, 11]
    assert stream.scenario == "class"


def test_what_is_no_benchmark() -> None:
    with pytest.raises(BadInput, match="has no train_stream"):
        data.from_benchmark(3)
    with pytest.raises(BadInput, match="no experience"):
        data.from_benchmark(SimpleNamespace(train_stream=[], test_stream=[]))
    with pytest.raises(BadInput, match="no map-style dataset"):
        data.from_benchmark(SimpleNamespace(train_stream=[SimpleNamespace()], test_stream=[]))
    empty = benchmark([[0], [1]])
    empty.train_stream[1].dataset = Images([])
    with pytest.raises(BadInput, match="'train 1' has no rows"):
        data.from_benchmark(empty)
    other = benchmark([[0, 1], [2]], tasks=[0, 1])
    other.test_stream[1].task_label = 9
    with pytest.raises(BadInput, match="'test 1' has a task label"):
        data.from_benchmark(other)


# --- a column


def table(n: int = 60) -> dict[str, Any]:
    return {
        "height": np.arange(n) / 10, "colour": ["red", "blue", "green"] * (n // 3), "label": ["no", "yes"] * (n // 2),
        "session": ["b"] * (n // 2) + ["a"] * (n - n // 2),
    }  # fmt: skip


def test_a_column_of_a_frame_or_mapping_names_the_experience() -> None:
    pandas = pytest.importorskip("pandas")
    for of in (table(), pandas.DataFrame(table())):
        stream = data.experiences(of, "session", roles={"label": "target"})
        assert [e.name for e in stream.train] == ["a", "b"]
        assert sorted(i for e in (*stream.train, *stream.test) for i in ids(e)) == list(range(60))
        assert {i < 30 for i in ids(stream.train[0])} == {False}
        assert stream.inputs == (2,)  # the column that names experiences is no input
        assert stream.labels == ("no", "yes")


def test_a_data_set_of_the_hubs_library() -> None:
    library = pytest.importorskip("datasets")
    whole = library.Dataset.from_dict(table())
    one = data.experiences(whole, "session", roles={"label": "target"}, values=["b", "a"])
    assert [e.name for e in one.train] == ["b", "a"]
    assert sum(len(e) for e in one.train) == 48
    splits = library.DatasetDict(train=whole, test=whole.select(range(20, 40)))
    two = data.experiences(splits, "session", roles={"label": "target"}, test="test")
    assert [len(e) for e in two.test] == [10, 10]
    with pytest.raises(BadInput, match="did you mean 'session'"):
        data.experiences(whole, "sesion", roles={"label": "target"})


def test_columns_of_tensors_and_the_three_scenarios() -> None:
    rows = {
        "x": torch.randn(40, 3),
        "y": torch.arange(40) // 10,
        "month": torch.arange(40) // 20,
        "id": np.arange(40) + 7,
    }
    plain, apart, own = (data.experiences(rows, "month", scenario=s) for s in ("domain", "class", "task"))
    assert [e.classes for e in apart.train] == [e.classes for e in own.train] == [(0, 1), (2, 3)]
    assert plain.outputs == apart.outputs == own.outputs == 4
    assert sorted(i for e in (*plain.train, *plain.test) for i in ids(e)) == list(range(7, 47))
    mixed = {**rows, "month": torch.arange(40) % 2}
    with pytest.raises(BadInput, match="class 0 is in the experiences 0 and 1"):
        data.experiences(mixed, "month", scenario="class")
    heads = data.experiences(mixed, "month", scenario="task")
    assert [e.classes for e in heads.train] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert heads.outputs == 8


def test_a_column_of_a_loaded_data_set() -> None:
    stream = data.experiences("digits", "class", values=["3", "1"], scenario="class")
    assert [e.classes for e in stream.train] == [(3,), (1,)]
    assert stream.outputs == 10


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, {"column": "moth"}, "did you mean 'month'"),
        ({}, {"values": [0, 5]}, "no training row with 5"),
        ({}, {"values": [0, 0]}, "one value twice"),
        ({}, {"test": "test"}, "names a split"),
        ({"month": torch.zeros(20, 2)}, {}, "one value for each of 20 rows"),
        ({"month": torch.zeros(3)}, {}, "one value for each of 20 rows"),
        ({"month": torch.tensor([1] + [0] * 19)}, {}, "'1' has no"),
    ],
)
def test_bad_columns(change: dict[str, Any], options: dict[str, Any], said: str) -> None:
    rows = {"x": torch.randn(20, 3), "y": torch.arange(20) % 3, "month": torch.arange(20) % 2, **change}
    with pytest.raises(BadInput, match=said):
        data.experiences(rows, **{"column": "month", **options})


def test_what_is_no_table() -> None:
    with pytest.raises(BadInput, match="a int is no table"):
        data.experiences(3, "month")


# --- by name


def test_a_name_makes_what_its_function_makes() -> None:
    assert same(data.stream("split-digits", tasks=2, order=1), data.split("digits", tasks=2, order=1))
    assert same(data.stream("permuted-digits", tasks=2), data.permuted("digits", tasks=2))
    assert data.stream("scole-digits", experiences=30).name == "recurring-digits"
    tail = data.stream("split-digits", imbalance=10, online_size=50)
    assert tail.name == "online-split-imbalanced-digits"
    assert [len(e) for e in tail.train][:5] == [50, 50, 50, 50, 13]
    assert data.stream("digits+digits", scenario="domain").name == "digits#1+digits#2"


def test_the_kinds_and_their_options_are_known_for_help() -> None:
    kinds = data.stream_kinds()
    assert {"split", "permuted", "rotated", "blurry", "recurring", "scole"} <= set(kinds)
    assert all(line.endswith(".") for line in kinds.values())
    assert "experiences" in named.stream_options("recurring")
    with pytest.raises(BadInput, match="did you mean 'rotated'"):
        named.stream_options("rotate")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("splt-digits", {}, "did you mean 'split'"),
        ("digits", {}, "write KIND-DATASET"),
        ("split-digit", {}, "did you mean 'digits'"),
        ("split-digits", {"task": 5}, "did you mean 'tasks'"),
        ("digits+digits", {"tasks": 5}, "takes no option 'tasks'"),
    ],
)
def test_bad_names(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        data.stream(name, **options)


def test_the_data_of_a_name_may_have_options(tmp_path: Any) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "rows.csv"
    pandas.DataFrame(table()).to_csv(path, index=False)
    roles = {"label": "target", "session": "group"}
    stream = data.stream(f"experiences-{path}", data={"roles": roles, "task": "classification"}, column="session")
    assert [e.name for e in stream.train] == ["a", "b"]
    assert isinstance(data.load(str(path), roles=roles, task="classification"), Dataset)
