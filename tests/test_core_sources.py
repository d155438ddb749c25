"""Sources: what they may be made of, which rows they give and in which order, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small import mlp, problem, rows, same, state, step
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Source
from oblivio.sources import Items, Tensors, as_source

X, Y = rows(20, 6)


class Pairs(Dataset):
    """A map-style dataset; with ``noise`` its transform draws anew at every reading."""

    def __init__(self, n: int = 20, noise: float = 0.0) -> None:
        self.n, self.noise, self.read = n, noise, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        self.read += 1
        return X[i] + self.noise * torch.randn(6), int(Y[i])


# --- order


def epochs(source: Source, batch: int, count: int, seed: int = 0) -> list[list[list[int]]]:
    """The rows of every batch of so many epochs."""
    of = problem(retain=source, seed=seed)
    now, out = step(of, batch=batch), []
    per_epoch = -(-len(source) // batch)
    for t in range(count * per_epoch):
        now.at_time(t)
        out.append(now.batch("retain")["row"].tolist())
    return [out[e * per_epoch : (e + 1) * per_epoch] for e in range(count)]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_loses_and_doubles_no_row(n: int, batch: int, seed: int) -> None:
    for epoch in epochs(Tensors({"x": torch.zeros(n, 6), "y": torch.zeros(n).long()}), batch, 2, seed):
        assert sorted(row for batch in epoch for row in batch) == list(range(n))
        assert all(len(rows) == batch for rows in epoch[:-1])


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = epochs(Tensors({"x": X, "y": Y}), 6, 2)
    (other,) = epochs(Tensors({"x": X, "y": Y}), 6, 1, seed=1)
    assert first != second
    assert first != other
    assert first == epochs(Tensors({"x": X, "y": Y}), 6, 1)[0]


def test_a_run_over_an_epoch_sees_every_row_once() -> None:
    of, seen = problem(m=23), []
    watch = lambda run, stage, now: seen.extend(now.batch("retain")["row"].tolist())  # noqa: E731
    Run(Descent(terms.fit("retain"), epochs=2, batch=5), of, watch=[watch]).go()
    assert sorted(seen) == sorted([*range(23)] * 2)
    assert of.passes == {"retain": 46}


# --- views and identities


def test_views_share_the_data_and_know_their_ids() -> None:
    source = Tensors({"x": X, "y": Y}, ids=[f"r{i}" for i in range(20)])
    view = source.take(Y == 1).take([0, 2])
    places = (Y == 1).nonzero().flatten()[[0, 2]].tolist()
    assert view.ids.tolist() == [f"r{i}" for i in places]
    assert view.data["x"].data_ptr() == X.data_ptr()
    batch = view.batch(torch.tensor([1]))
    assert torch.equal(batch["x"], X[places[1:]])
    assert (batch["row"].tolist(), batch["id"].tolist()) == ([1], [f"r{places[1]}"])


@given(st.lists(st.integers(0, 19), unique=True, min_size=1), st.data())
def test_a_view_of_a_view_is_a_view(first: list[int], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.integers(0, len(first) - 1), unique=True))
    for source in (Tensors({"x": X, "y": Y}), Items(Pairs())):
        view = source.take(first).take(second)
        assert view.ids.tolist() == [first[i] for i in second]
        if second:
            assert torch.equal(view.batch(torch.arange(len(view)))["x"], X[[first[i] for i in second]])


@pytest.mark.parametrize("index", [[20], [-1], torch.tensor([3, 99])])
def test_a_row_that_is_not_there_is_refused(index: object) -> None:
    with pytest.raises(BadInput, match="of a source of 20 rows"):
        Tensors({"x": X}).take(index)


def test_forget_and_retain_must_not_share_a_record() -> None:
    source = as_source((X, Y))
    with pytest.raises(BadInput, match=r"overlap in 2 rows, first ids \[3, 4\]"):
        Problem(mlp(), forget=source.take([3, 4, 5]), retain=source.take([0, 3, 4]))
    with pytest.raises(BadInput, match=r"overlap in 1 rows, first ids \['b'\]"):
        Problem(mlp(), forget=(X[:2], Y[:2], ["a", "b"]), retain=(X[2:4], Y[2:4], ["b", "c"]))
    Problem(mlp(), forget=(X[:2], Y[:2]), retain=(X[2:4], Y[2:4]))  # positions in different data say nothing


@pytest.mark.parametrize("rows", [Pairs(), TensorDataset(X, Y)], ids=["items", "tensors"])
def test_subsets_of_one_dataset_know_the_rows_they_share(rows: Dataset) -> None:
    nested = Subset(Subset(rows, range(1, 20)), torch.tensor([0, 2]))
    assert as_source(nested).ids.tolist() == [1, 3]
    assert as_source(nested).batch(torch.arange(2))["y"].tolist() == Y[[1, 3]].tolist()
    for retain in (Subset(rows, [1, 2]), nested, rows):
        with pytest.raises(BadInput, match=r"overlap in .*\b1\b"):
            Problem(mlp(), forget=Subset(rows, [0, 1]), retain=retain)
    Problem(mlp(), forget=Subset(rows, [0, 1]), retain=Subset(rows, [2, 3]))


@pytest.mark.filterwarnings("ignore:.*order and drop_last are not")
@pytest.mark.parametrize("collate", [None, torch.utils.data.default_collate, lambda items: {"x": X[:1], "y": Y[:1]}])
def test_a_loader_over_a_subset_is_a_view_too(collate: object) -> None:
    rows = TensorDataset(X, Y)
    retain = DataLoader(Subset(rows, [1, 2, 3]), collate_fn=collate)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"overlap in 1 rows, first ids \[1\]"):
        Problem(mlp(), forget=Subset(rows, [0, 1]), retain=retain)


def test_a_subset_with_items_of_its_own_is_left_whole() -> None:
    class Shifted(Subset):
        def __getitem__(self, i: int) -> tuple[Tensor, int]:  # type: ignore[override]
            x, y = self.dataset[self.indices[i]]
            return x + 1, y

        def __getitems__(self, places: list[int]) -> list[tuple[Tensor, int]]:  # type: ignore[override]
            return [self[i] for i in places]

    source = as_source(Shifted(Pairs(), [4, 5]))
    assert torch.equal(source.batch(torch.arange(2))["x"], X[[4, 5]] + 1)
    assert source.ids.tolist() == [0, 1]


def test_a_dataset_names_its_rows_by_its_ids() -> None:
    rows = Pairs()
    rows.ids = [f"r{i}" for i in range(20)]
    assert as_source(Subset(rows, [3, 5])).ids.tolist() == ["r3", "r5"]
    rows.ids = [1, 2]  # something else
    assert as_source(Subset(rows, [3, 5])).ids.tolist() == [3, 5]


def test_an_id_among_the_items_is_not_the_id() -> None:
    class Records(Pairs):
        def __getitem__(self, i: int) -> dict[str, object]:  # type: ignore[override]
            return {"x": X[i], "y": int(Y[i]), "id": 100 + i}

    source = as_source(Records())
    batch = source.batch(torch.arange(2))
    _ = batch["x"]
    assert (source.columns, batch["id"].tolist()) == (("x", "y"), [0, 1])


@pytest.mark.parametrize(("given", "words"), [
    ((X, Y[:3]), "columns differ in length"), ((X, Y, [1] * 20), "ids must differ"), (object(), "give"),
    ((X, Y, [1, 2]), "2 ids for 20 rows"), ((np.array(["a", "b"]),), "numbers are needed"),
])  # fmt: skip
def test_what_is_no_source_is_refused(given: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        as_source(given)


def test_an_empty_forget_set_and_unknown_names_are_refused() -> None:
    with pytest.raises(BadInput, match="forget: no rows"):
        Problem(mlp(), forget=(X[:0], Y[:0]))
    with pytest.raises(BadInput, match="no source 'retian'; did you mean 'retain'"):
        problem().source("retian")
    with pytest.raises(BadInput, match="no column 'z'; it has x, y"):
        problem().source("retain").batch(torch.arange(2))["z"]


# --- kinds


def test_the_same_rows_train_the_same_from_every_kind_of_source() -> None:
    kinds = [(X, Y), (X.numpy(), Y.numpy()), {"x": X, "y": Y}, TensorDataset(X, Y), Pairs(), Tensors({"x": X, "y": Y})]
    ends = []
    for kind in kinds:
        of = problem(retain=kind)
        ends.append(state(Run(Descent(terms.fit("retain"), epochs=2, batch=6), of).go()))
    assert all(same(end, ends[0]) for end in ends)


def test_of_a_data_loader_only_rows_and_collation_are_used() -> None:
    def turned(items: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        return {"x": torch.stack([x.flip(0) for x, _ in items]), "y": torch.tensor([y for _, y in items])}

    loader = DataLoader(Pairs(), batch_size=7, shuffle=True, drop_last=True, collate_fn=turned)
    with pytest.warns(UserWarning, match="retain: of the DataLoader only dataset and collate_fn are used"):
        source = as_source(loader, "retain")
    assert len(source) == 20
    assert torch.equal(source.batch(torch.arange(20))["x"], X.flip(1))


def test_an_iterable_dataset_has_no_rows() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> object:
            return iter([])

    with pytest.raises(BadInput, match="map-style"):
        Items(Stream())


def test_a_column_is_read_when_it_is_asked_for() -> None:
    data = Pairs()
    source = Items(data)
    before = data.read
    batch = source.batch(torch.arange(4))
    assert (batch["row"].tolist(), batch["id"].tolist(), data.read) == ([0, 1, 2, 3], [0, 1, 2, 3], before)
    assert len(batch["x"]) == len(batch["y"]) == 4
    assert data.read == before + 4


def test_wide_numbers_become_what_models_take() -> None:
    source = Tensors({"x": np.ones((3, 2)), "y": np.array([1, 2, 3], dtype=np.uint16)})
    batch = source.batch(torch.arange(3))
    assert (batch["x"].dtype, batch["y"].dtype) == (torch.float32, torch.int64)


# --- the frozen start


def frozen_passes(source: object, epochs: int = 4) -> tuple[Problem, int]:
    of = problem(forget=source)
    Run(Descent(terms.npo("forget"), opt=sgd(0.1), epochs=epochs, batch=8), of).go()
    return of, of.passes["forget"] - epochs * 20


def test_outputs_of_the_start_are_computed_once() -> None:
    of, extra = frozen_passes((X, Y))
    assert (extra, len(of.frozen)) == (20, 1)
    assert "start" not in of.snapshots
    logits = problem().model(X).detach()
    torch.testing.assert_close(of.frozen["forget|start|task.score"], -F.cross_entropy(logits, Y, reduction="none"))


@pytest.mark.parametrize("source", [Pairs(noise=0.5), Items(Pairs(), random=True)])
def test_rows_that_vary_are_never_served_from_the_cache(source: object) -> None:
    of, _ = frozen_passes(source)
    assert of.frozen == {}
    assert same(of.snapshots["start"], state(problem()))


def test_the_cache_changes_nothing() -> None:
    a, b = frozen_passes(Items(Pairs()))[0], frozen_passes(Items(Pairs(), random=True))[0]
    for key, value in state(a).items():
        torch.testing.assert_close(value, state(b)[key], rtol=1e-5, atol=1e-6)


def test_a_frozen_model_is_in_evaluation_mode() -> None:
    of = problem(lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 4)))
    of.keep("start")
    now, (take,) = step(of), terms.distill("forget").frozen
    expected = of.model.eval()(now.batch("forget")["x"]).detach()
    of.model.train()
    torch.testing.assert_close(now.frozen("forget", take), expected)
    of.freeze("forget", take)
    torch.testing.assert_close(now.frozen("forget", take), expected)


def test_another_run_on_the_same_problem_starts_from_where_the_first_ended() -> None:
    of = problem()
    plan = Descent(terms.distill("forget"), opt=sgd(0.5), steps=3)
    Run(Descent(terms.fit("retain"), opt=sgd(0.5), steps=5) >> plan, of).go()
    between = state(of)
    Run(plan, of).go()  # at its own start the distance has no gradient
    for key, value in state(of).items():
        torch.testing.assert_close(value, between[key], rtol=0, atol=1e-6)


def test_the_name_of_a_cache_holds_the_settings_of_what_is_taken() -> None:
    of = problem()
    with pytest.raises(BadInput, match="no name of its own"):
        of.frozen_key("forget", lambda out, batch: out, "start")
