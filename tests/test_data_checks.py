"""What no model can be trained on is refused, and rows on both sides of a request are found."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from oblivio.core.errors import BadInput
from oblivio.data import duplicates
from oblivio.data.checks import check
from oblivio.data.duplicates import copies
from oblivio.sources import Items, Tensors


def rows(y: Any, x: Any = None) -> Tensors:
    labels = torch.as_tensor(y)
    return Tensors({"x": torch.zeros(len(labels), 2) if x is None else x, "y": labels})


def test_good_rows_pass() -> None:
    check(rows([0, 1, 2]), "train", task="classification", outputs=3, inputs=(2,))
    check(rows([0, 1]), "train", task="binary", outputs=1)
    check(rows([[0.0], [1.0]]), "train", task="binary", outputs=1)
    check(rows([[0, 1], [1, 1]]), "train", task="multilabel", outputs=2)
    check(rows([0.5, -3.0]), "train", task="regression", outputs=1)
    check(Tensors({"x": torch.ones(3, 2, dtype=torch.uint8)}), "retain", task="classification", outputs=2)
    gaps = torch.tensor([[0.0, torch.nan]])
    check(rows([0], gaps), "train", task="binary", outputs=1, missing=True)


@pytest.mark.parametrize(
    ("y", "task", "outputs", "message"),
    [
        ([0, 3, -1], "classification", 3, "2 rows with labels outside 0 to 2, the outputs of the model, ids 1, 2"),
        ([0.0, 1.0], "classification", 3, "labels are torch.float32"),
        ([[0], [1]], "classification", 2, "rows of y have the shape (1,)"),
        ([0, 2], "binary", 1, "1 rows with labels other than 0 and 1, ids 1"),
        ([[0, 1, 1]], "multilabel", 2, "rows of y have the shape (3,), and multilabel with 2 outputs needs (2,)"),
        ([[0, 5], [1, 1]], "multilabel", 2, "1 rows with labels other than 0 and 1, ids 0"),
        ([1.0, float("nan"), float("inf")], "regression", 1, "2 rows with NaN or infinite targets, ids 1, 2"),
        ([1.0, 2.0], "regression", 2, "rows of y have the shape ()"),
        ([], "classification", 2, "forget: no rows"),
    ],
)
def test_labels_that_do_not_suit_are_refused(y: Any, task: Any, outputs: int, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        check(rows(y), "forget", task=task, outputs=outputs)
    assert message in str(raised.value)
    assert str(raised.value).startswith("forget: ")


def test_broken_inputs_are_counted_and_named() -> None:
    x = torch.zeros(700, 2)
    x[[5, 300, 301, 302, 303, 699], 1] = torch.tensor([torch.nan, torch.inf] * 3)
    source = Tensors({"x": x, "y": torch.zeros(700).long()}, ids=[f"u{i}" for i in range(700)])
    with pytest.raises(BadInput, match=r'6 rows with NaN or infinite inputs, ids "u5", "u300", .*, "u303", \.\.\.;'):
        check(source, "retain", task="classification", outputs=2)
    with pytest.raises(BadInput, match=r"3 rows with NaN or infinite inputs, ids"):
        check(source, "retain", task="classification", outputs=2, missing=True)
    with pytest.raises(BadInput, match=r'1 rows .* ids "u300";'):
        check(source.take([299, 300, 304]), "retain", task="classification", outputs=2)


def test_another_shape_is_refused() -> None:
    with pytest.raises(BadInput, match=r"rows of x have the shape \(2,\), and the model takes \(3, 4, 4\)"):
        check(rows([0]), "test", task="classification", outputs=2, inputs=(3, 4, 4))


# --- the same content twice


def test_copies_are_found_by_their_bytes() -> None:
    forget = Tensors({"x": torch.tensor([[1.0, 2], [0, torch.nan], [5, 5]])})
    retain = Tensors({"x": torch.tensor([[2.0, 1], [0, torch.nan], [1, 2], [9, 9], [1, 2], [-0.0, torch.nan]])})
    assert copies(forget, retain).tolist() == [1, 2, 4]
    assert copies(forget.take([2]), retain).tolist() == []
    assert copies(forget.take([]), retain).tolist() == []
    assert copies(forget, retain.take([])).tolist() == []


@given(st.lists(st.integers(0, 20), max_size=30), st.lists(st.integers(0, 20), max_size=30), st.integers(1, 7))
def test_copies_are_what_a_loop_finds(forget: list[int], retain: list[int], at_once: int) -> None:
    sides = [Tensors({"x": torch.tensor(side, dtype=torch.float32)[:, None, None]}) for side in (forget, retain)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "AT_ONCE", at_once)
        assert copies(*sides).tolist() == [i for i, value in enumerate(retain) if value in forget]


def test_the_same_hash_is_not_the_same_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "hash", lambda _: 7, raising=False)
    sides = (Tensors({"x": torch.tensor(side)[:, None]}) for side in ([1, 2], [3, 2, 1, 4]))
    assert copies(*sides).tolist() == [1, 2]


def test_other_types_are_other_content() -> None:
    floats, whole = Tensors({"x": torch.zeros(2, 1)}), Tensors({"x": torch.zeros(2, 1, dtype=torch.int32)})
    assert copies(floats, whole).tolist() == []
    assert copies(floats, Tensors({"x": torch.zeros(2, 1, 1)})).tolist() == []


def test_copies_in_items_and_memory_maps(tmp_path: Path) -> None:
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(300, 3))
    x[:] = np.arange(900).reshape(300, 3) % 300
    mapped = Tensors({"x": x})
    items = Items(TensorDataset(torch.tensor(x[:5]), torch.zeros(5), torch.zeros(5)))
    assert copies(items, mapped).tolist() == [*range(5), *range(100, 105), *range(200, 205)]


def test_what_cannot_be_searched_is_said() -> None:
    fixed = Tensors({"x": torch.zeros(2, 1)})
    drawn = Items(TensorDataset(torch.zeros(2, 1), torch.zeros(2)), random=True)
    with pytest.warns(UserWarning, match="not looked for: the transform of source '' draws anew"):
        assert copies(fixed, drawn).tolist() == []
    with pytest.warns(UserWarning, match="has no column 'x'"):
        assert copies(Tensors({"tokens": torch.zeros(2)}), fixed).tolist() == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert copies(fixed, fixed).tolist() == [0, 1]
