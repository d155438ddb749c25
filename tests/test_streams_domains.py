"""Streams whose inputs change: permuted and rotated pixels, other domains."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from streaming import dataset, ids, read
from torch import Tensor
from torch.nn import functional

from oblivio import data
from oblivio.core.errors import BadInput
from oblivio.data.dataset import Dataset
from oblivio.data.streams.changes import CHANGES, Rotate, change, corners
from oblivio.sources import Tensors


def images(classes: int = 4, side: int = 5) -> Dataset:
    """Random images of five rows each; test rows are others."""
    g = torch.Generator().manual_seed(0)
    halves = [Tensors({"x": torch.rand(n * classes, 2, side, side, generator=g), "y": torch.arange(classes).repeat(n)})
              for n in (5, 2)]  # fmt: skip
    return Dataset("images", *halves, "classification", (2, side, side), classes)


@given(tasks=st.integers(1, 5), order=st.integers(0, 50))
@settings(max_examples=15)
def test_permuted_tasks_have_the_same_records_in_other_orders(tasks: int, order: int) -> None:
    of = images()
    stream = data.permuted(of, tasks=tasks, order=order)
    plain = of.train.batch(torch.arange(20))["x"].flatten(1)
    for t, e in enumerate(stream.train):
        assert ids(e) == list(range(20))
        x, test = read(e.rows, "x"), read(stream.test[t].rows, "x")
        assert x.shape == (20, 2, 5, 5)
        assert torch.equal(x.flatten(1).sort().values, plain.sort().values)
        assert torch.equal(x.flatten(1), plain) == (t == 0)
        order_of = (x.flatten(1)[0][:, None] == plain[0]).int().argmax(1)  # values of random images differ
        assert torch.equal(x.flatten(1), plain[:, order_of])
        assert torch.equal(test.flatten(1), of.test.batch(torch.arange(8))["x"].flatten(1)[:, order_of])
    assert stream.outputs == 4


def test_the_order_is_the_seed_of_the_permutations() -> None:
    of = images()
    a, b, again = (read(data.permuted(of, tasks=2, order=o).train[1].rows, "x") for o in (0, 1, 0))
    assert torch.equal(a, again)
    assert not torch.equal(a, b)
    more = read(data.permuted(of, tasks=4).train[1].rows, "x")
    assert torch.equal(a, more)  # a longer stream begins as the shorter one


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_permuted_tasks_may_have_outputs_of_their_own(scenario: str) -> None:
    stream = data.permuted(images(), tasks=3, scenario=scenario)
    assert stream.outputs == 12
    assert [e.classes for e in stream.test] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert torch.equal(read(stream.train[2].rows), read(stream.train[0].rows) + 8)
    assert set(read(stream.train[2].rows, "task").tolist()) == {2}


def test_the_validation_rows_of_all_tasks_are_the_same_records() -> None:
    stream = data.permuted(images(), tasks=3, valid=0.2)
    assert len({tuple(e.valid.ids.tolist()) for e in stream.train if e.valid is not None}) == 1
    assert not {i for e in stream.train for i in ids(e)} & set(stream.train[0].valid.ids.tolist())  # type: ignore[union-attr]


def test_columns_of_a_table_are_permuted_unless_they_are_categories() -> None:
    stream = data.permuted("breast_cancer", tasks=2)
    assert read(stream.train[1].rows, "x").shape == (455, 30)
    layout = data.Layout((0, 3))
    with pytest.raises(BadInput, match="columns of categories"):
        data.permuted(dataset(3, inputs=(2,), preprocess=layout))


@pytest.mark.alone
def test_a_permuted_batch_is_read_in_well_under_a_fifth_of_a_millisecond() -> None:
    rows = data.permuted(dataset(10, each=100, inputs=(1, 28, 28)), tasks=2).train[1].rows
    at, times = torch.arange(128) * 7, []
    for _ in range(200):
        start = perf_counter()
        rows.batch(at)["x"]
        times.append(perf_counter() - start)
    assert min(times) < 2e-4


# --- turning


def test_quarter_turns_move_pixels() -> None:
    of = images()
    stream = data.rotated(of)
    plain = of.train.batch(torch.arange(20))["x"]
    for t, e in enumerate(stream.train):
        assert torch.equal(read(e.rows, "x"), plain.rot90(t, (-2, -1)))
    assert [e.name for e in stream.train] == ["0 degrees", "90 degrees", "180 degrees", "270 degrees"]


def sampled(x: Tensor, degrees: float) -> Tensor:
    """The same turn by torch's own sampling."""
    angle, (height, width) = torch.deg2rad(torch.tensor(degrees)), x.shape[-2:]
    cos, sin = angle.cos(), angle.sin()
    turn = torch.tensor([[cos, -sin * height / width, 0], [sin * width / height, cos, 0]])
    grid = functional.affine_grid(turn.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


@given(degrees=st.floats(-400, 400), height=st.integers(2, 7), width=st.integers(2, 7))
@settings(max_examples=30)
def test_any_angle_is_what_torch_samples(degrees: float, height: int, width: int) -> None:
    x = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(1))
    turn = Rotate(degrees)
    if turn.quarters is None or height == width:
        torch.testing.assert_close(turn(x), sampled(x, degrees), atol=1e-4, rtol=0)


def test_a_turn_by_90_degrees_is_that_of_rot90_also_when_interpolated() -> None:
    x = torch.rand(2, 1, 5, 5)
    places, weights = corners(90, 5, 5)
    turned = sum(x.flatten(1)[:, p] * w for p, w in zip(places, weights, strict=True))
    torch.testing.assert_close(turned.view(x.shape), x.rot90(1, (-2, -1)), atol=1e-5, rtol=0)  # type: ignore[union-attr]


# --- other domains


def test_domains_by_hand() -> None:
    x = torch.arange(8.0).view(1, 1, 2, 4) / 8
    got = {name: change(name, (1, 2, 4))(x)[0, 0] for name in CHANGES if name not in ("rotated", "noisy")}
    rows = x[0, 0]
    assert torch.equal(got["identity"], rows)
    assert got["mirrored"].tolist() == [[0.375, 0.25, 0.125, 0.0], [0.875, 0.75, 0.625, 0.5]]
    assert torch.equal(got["flipped"], rows[[1, 0]])
    assert torch.equal(got["inverted"], 1 - rows)
    assert torch.equal(got["dimmed"], rows / 2)
    assert got["blurred"][0, 0] == rows[:, :2].mean()
    assert got["blurred"][1, 2] == pytest.approx(float(rows[:, 1:].mean()))
    noisy = change("noisy", (1, 2, 4))
    assert torch.equal(noisy(x), noisy(x))  # one pattern: a row reads the same every time
    assert 0 <= float(noisy(x).min()) <= float(noisy(x).max()) <= 1
    assert not torch.equal(noisy(x), x)


def test_the_domains_of_digits() -> None:
    stream = data.domains("digits")
    assert [e.name for e in stream.train] == ["identity", "mirrored", "rotated", "inverted"]
    assert stream.outputs == 10
    first, turned = (read(stream.train[t].rows, "x") for t in (0, 2))
    assert torch.equal(turned, first.rot90(1, (-2, -1)))


@pytest.mark.parametrize(
    ("make", "of", "options", "said"),
    [
        (data.rotated, {"inputs": (4,)}, {}, "images .* are needed"),
        (data.domains, {"inputs": (4,)}, {}, "images .* are needed"),
        (data.rotated, {"inputs": (1, 3, 4)}, {}, "another shape after a quarter turn"),
        (data.domains, {"inputs": (1, 3, 4)}, {}, "another shape after a quarter turn"),
        (data.domains, {}, {"tasks": ["inverse"]}, "did you mean 'inverted'"),
        (data.domains, {}, {"tasks": []}, "at least 1"),
        (data.permuted, {}, {"tasks": 0}, "at least 1"),
        (data.permuted, {}, {"scenario": "domains"}, "did you mean 'domain'"),
        (data.rotated, {}, {"step": float("nan")}, "step"),
        (data.permuted, {"task": "regression", "outputs": 1}, {"scenario": "class"}, "rows have no one class"),
    ],
)
def test_what_cannot_be(make: Any, of: dict[str, Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make(dataset(3, **of), **options)


def test_half_turns_suit_any_images() -> None:
    stream = data.rotated(dataset(3, inputs=(1, 3, 4)), tasks=2, step=180)
    assert read(stream.train[1].rows, "x").shape[1:] == (1, 3, 4)
