"""Generators of manipulated and grouped rows: what they change, what they leave, what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oblivio.core.errors import BadInput
from oblivio.data import groups, manipulate
from oblivio.data.columns import column
from oblivio.sources import Tensors

CLASSES, SIDE = 4, 6
COUNTS = st.integers(1, 40)
SEEDS = st.integers(0, 2**31)


def rows(n: int = 40, seed: int = 0) -> Tensors:
    draws = np.random.default_rng(seed)
    x = draws.uniform(0, 0.9, (n, 1, SIDE, SIDE)).astype(np.float32)
    return Tensors({"x": x, "y": np.arange(n) % CLASSES}, ids=1000 + 3 * np.arange(n))


def same(a: Any, b: Any, where: Any = slice(None)) -> bool:
    return all(np.array_equal(column(a, name)[where], column(b, name)[where]) for name in ("x", "y"))


# --- ids


@given(COUNTS, SEEDS)
def test_a_draw_has_so_many_different_rows_and_a_greater_one_keeps_them(count: int, seed: int) -> None:
    source = rows()
    few, all_ = manipulate.draw(source, count, seed), manipulate.draw(source, 40, seed)
    assert len(set(few.tolist())) == count
    assert few.tolist() == all_[:count].tolist()
    assert set(all_.tolist()) == set(source.ids.tolist())


def test_a_draw_keeps_to_its_mask() -> None:
    source = rows()
    drawn = manipulate.draw(source, 10, 0, column(source, "y") == 2)
    assert set(drawn.tolist()) == set(source.ids[column(source, "y") == 2].tolist())


@pytest.mark.parametrize("count", [0, -1, 41])
def test_no_more_rows_are_drawn_than_there_are(count: int) -> None:
    with pytest.raises(BadInput, match=f"{count} rows are to be drawn from 40"):
        manipulate.draw(rows(), count, 0)


@pytest.mark.parametrize(
    ("ids", "words"),
    [([1000, 1003, 1000], "1000 are given twice"), ([], "no ids"), ([1000, 7], "belong to no row: 7"),
     ([[1000]], "no ids")],
)  # fmt: skip
@pytest.mark.parametrize(
    "change",
    [
        lambda source, ids: manipulate.poison(source, ids, 0),
        lambda source, ids: manipulate.triggered(source, ids),
        lambda source, ids: manipulate.mislabel(source, ids, CLASSES, 0),
        lambda source, ids: manipulate.confuse(source, ids, (0, 1)),
        lambda source, ids: manipulate.flagged(source, "known", ids),
        groups.transposed,
    ],
    ids=["poison", "triggered", "mislabel", "confuse", "flagged", "transposed"],
)
def test_ids_given_twice_unknown_or_missing_are_refused(change: Any, ids: list[Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        change(rows(), ids)


# --- manipulations


@given(COUNTS, SEEDS, st.integers(1, SIDE - 1), st.integers(0, CLASSES - 1))
def test_poison_changes_the_corner_and_label_of_its_rows_and_nothing_else(
    count: int, seed: int, size: int, target: int
) -> None:
    source = rows()
    ids = manipulate.draw(source, count, seed)
    made = manipulate.poison(source, ids, target, size)
    bad = np.isin(source.ids, ids)
    assert made.ids.tolist() == source.ids.tolist()
    assert same(made, source, ~bad)
    assert (column(made, "y")[bad] == target).all()
    x, before = column(made, "x")[bad].copy(), column(source, "x")[bad].copy()
    assert (x[:, :, -size:, -size:] == 1).all()
    x[:, :, -size:, -size:] = before[:, :, -size:, -size:] = 0
    assert np.array_equal(x, before)


def test_a_source_is_never_changed_in_place() -> None:
    source, before = rows(), rows()
    ids = source.ids[:5].tolist()
    manipulate.poison(source, ids, 1)
    manipulate.mislabel(source, ids, CLASSES, 0)
    groups.transposed(source, ids)
    groups.subjects(source, range(4), 0)
    assert same(source, before)


def test_a_patch_must_be_a_part_of_images() -> None:
    source = rows()
    with pytest.raises(BadInput, match="does not fit in images of 6 x 6"):
        manipulate.triggered(source, source.ids, SIDE)
    with pytest.raises(BadInput, match="a patch needs images"):
        manipulate.triggered(Tensors({"x": np.zeros((3, 2)), "y": np.zeros(3)}), [0])
    with pytest.raises(BadInput, match="target 9 is the label of no row"):
        manipulate.poison(source, source.ids[:1], 9)


@given(COUNTS, SEEDS)
def test_a_wrong_label_is_wrong_and_a_class(count: int, seed: int) -> None:
    source = rows()
    ids = manipulate.draw(source, count, seed)
    made, bad = manipulate.mislabel(source, ids, CLASSES, seed), np.isin(source.ids, ids)
    assert same(made, source, ~bad)
    assert (column(made, "y")[bad] != column(source, "y")[bad]).all()
    assert set(column(made, "y").tolist()) <= set(range(CLASSES))


def test_wrong_labels_need_classes() -> None:
    with pytest.raises(BadInput, match="not 3 classes"):
        manipulate.mislabel(rows(), [1000], 3, 0)


def test_confusion_swaps_two_classes_and_swaps_them_back() -> None:
    source = rows()
    ids = source.ids[column(source, "y") < 2]
    made = manipulate.confuse(source, ids, (0, 1))
    assert np.array_equal(
        column(made, "y")[np.isin(source.ids, ids)], 1 - column(source, "y")[np.isin(source.ids, ids)]
    )
    assert same(manipulate.confuse(made, ids, (0, 1)), source)
    with pytest.raises(BadInput, match="labels 2 beside 0 and 1"):
        manipulate.confuse(source, source.ids[:3], (0, 1))
    with pytest.raises(BadInput, match="the same"):
        manipulate.confuse(source, ids, (1, 1))


@given(COUNTS, SEEDS, st.floats(0.01, 1), st.floats(0.01, 1))
def test_more_is_found_out_with_a_greater_share_and_nothing_lost(count: int, seed: int, a: float, b: float) -> None:
    ids = np.arange(count)
    less, more = (set(manipulate.reveal(ids, share, seed).tolist()) for share in sorted((a, b)))
    assert less <= more <= set(ids.tolist())
    assert len(manipulate.reveal(ids, a, seed)) == max(1, round(a * count))


@pytest.mark.parametrize("share", [0, -0.1, 1.01])
def test_a_share_found_out_is_a_share(share: float) -> None:
    with pytest.raises(BadInput, match="known = "):
        manipulate.reveal([1, 2], share, 0)


def test_no_row_is_poisoned_twice() -> None:
    with pytest.raises(BadInput, match="3 ids, 2 of them different"):
        manipulate.reveal([1, 2, 2], 0.5, 0)


# --- groups


@given(SEEDS, st.integers(1, 40))
def test_every_person_has_rows_and_other_numbers_are_other_people(seed: int, people: int) -> None:
    source = rows()
    made = groups.subjects(source, range(people), seed, contrast=0)
    assert set(column(made, "group").tolist()) == set(range(people))
    assert np.array_equal(column(made, "y"), column(source, "y"))
    first = column(made, "group") == 0
    added = (column(made, "x") - column(source, "x"))[first]
    assert np.allclose(added, added[:1], atol=1e-5)
    other = groups.subjects(source, range(people, 2 * people), seed, contrast=0)
    assert not set(column(other, "group").tolist()) & set(range(people))


def test_a_person_looks_the_same_in_other_rows() -> None:
    """A person's pattern depends on their number and the seed alone."""
    blank = Tensors({"x": np.zeros((6, 1, 2, 2), np.float32), "y": np.zeros(6)})
    one = groups.subjects(blank, [5], 3)
    both = groups.subjects(blank, [9, 5], 3)
    assert np.array_equal(column(one, "x")[0], column(both, "x")[column(both, "group") == 5][0])


def test_nonsense_people_are_refused() -> None:
    for people in ([], [1, 1]):
        with pytest.raises(BadInput, match="each number once"):
            groups.subjects(rows(), people, 0)
    with pytest.raises(BadInput, match="41 people for 40 rows"):
        groups.subjects(rows(), range(41), 0)


def test_transposing_twice_gives_the_images_back() -> None:
    source = rows()
    made = groups.transposed(source, source.ids[:7])
    assert column(made, "group").tolist() == [1] * 7 + [0] * 33
    assert np.array_equal(column(made, "x")[0, 0], column(source, "x")[0, 0].T)
    assert same(groups.transposed(made, source.ids[:7]), source)
    with pytest.raises(BadInput, match="square"):
        groups.transposed(Tensors({"x": np.zeros((2, 1, 2, 3)), "y": np.zeros(2)}), [0])


@given(SEEDS, st.integers(1, 50))
def test_class_sizes_fall_geometrically(seed: int, ratio: int) -> None:
    source = rows(200)
    y = column(groups.imbalanced(source, ratio, seed), "y")
    sizes = [int((y == c).sum()) for c in range(CLASSES)]
    assert sizes == [round(50 * ratio ** (-c / (CLASSES - 1))) for c in range(CLASSES)]
    assert (sizes[0], sizes[-1]) == (50, round(50 / ratio))


@pytest.mark.parametrize("ratio", [0.5, 11])
def test_a_ratio_that_classes_cannot_have_is_refused(ratio: float) -> None:
    with pytest.raises(BadInput, match="ratio"):
        groups.imbalanced(rows(), ratio, 0)


def test_joined_classes_keep_what_they_were() -> None:
    source = rows()
    made = groups.joined(source, [0, 1, 1, 0])
    assert np.array_equal(column(made, "group"), column(source, "y"))
    assert column(made, "y")[:4].tolist() == [0, 1, 1, 0]
    with pytest.raises(BadInput, match="labels run from 0 to 3"):
        groups.joined(source, [0, 0, 1])
    with pytest.raises(BadInput, match="without a gap"):
        groups.joined(source, [0, 2, 2, 0])
