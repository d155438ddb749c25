"""Naming the rows that go: every kind of request, its complement, and what is said when nothing is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset as TorchDataset

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data.columns import Field
from oblivio.data.identity import places_of, read_ids
from oblivio.data.selection import select, spec, split
from oblivio.sources import Items, Tensors

CLASSES = ("cat", "dog", "3")
FIELDS = {"animal": Field("y", words=CLASSES), "age": Field("x", 1), "person": Field("id")}


def source() -> Tensors:
    x = torch.arange(20, dtype=torch.float32).view(10, 2)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    group = torch.tensor([7, 7, 7, 8, 8, 8, 9, 9, 9, 9])
    return Tensors({"x": x, "y": y, "group": group}, ids=[f"u{i}" for i in range(10)])


class Counted(TorchDataset[dict[str, Any]]):
    """Items that count how often they are made; one column is text."""

    def __init__(self) -> None:
        self.made = 0

    def __len__(self) -> int:
        return 600

    def __getitem__(self, place: int) -> dict[str, Any]:
        self.made += 1
        return {"x": torch.full((3,), float(place)), "y": place % 4, "site": f"s{place % 5}"}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("class=1", [1, 4, 7]),
        ("class=dog", [1, 4, 7]),
        ("class=3", [2, 5, 8]),  # a name comes before a number
        ({"class": 0}, [0, 3, 6, 9]),
        ({"class": ["cat", 1]}, [0, 1, 3, 4, 6, 7, 9]),
        ({"ids": ["u9", "u2"]}, [2, 9]),
        ("group=8", [3, 4, 5]),
        ({"group": [7, "9"]}, [0, 1, 2, 6, 7, 8, 9]),
        ('where=animal == "cat" and group > 7', [3, 6, 9]),
        ("where=y == 0 and age < 5", [0]),
        ({"where": 'id in ("u1", "u2") or person == "u3"'}, [1, 2, 3]),
    ],
)
def test_a_request_names_rows(request_: Any, expected: list[int]) -> None:
    assert select(source(), request_, fields=FIELDS).tolist() == expected


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("clas=3", "rows cannot be named by 'clas'; did you mean 'class'?"),
        ("everything", "'everything' names no rows; write KIND=VALUE"),
        ({"class": 1, "random": 0.1}, "give one of class, ids, where, random, group"),
        (3, "give one of class, ids, where, random, group"),
        ("class=dgo", "there is no class 'dgo'; did you mean 'dog'?"),
        ("class=12", "there is no class '12'"),
        ("where=ages > 3", "no column 'ages'; did you mean 'age'? (character 1"),
        ("where=x > 3", "column 'x' holds (2,) values a row"),
        ("where=age > 50", "names none of 10 rows; age is one of 1.0, 3.0, 5.0"),
        ("where=age > 50 and animal == 'cat'", "; animal is one of 3, cat, dog"),
        ("where=animal == 'cow'", "animal is one of 3, cat, dog"),
        ("group=17", "group=17 names none of 10 rows; group is one of 7, 8, 9"),
        ("group=anna", "the groups are numbers, and 'anna' is none"),
        ("random=2", "a random share is a number above 0 and at most 1"),
        ("random=few", "a random share is a number above 0 and at most 1"),
        ("random=0.01", "random=0.01 names none of 10 rows"),
        ({"ids": []}, "ids=[] names none of 10 rows"),
        ({"ids": ["u1", "v1", "v2"]}, '2 of 3 ids belong to no row: "v1", "v2"; the rows\' ids are "u0", "u1"'),
        ("ids=absent.txt", "no file absent.txt"),
    ],
)
def test_what_names_no_rows_is_refused(request_: Any, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        select(source(), request_, fields=FIELDS)
    assert message in str(raised.value)


def test_a_message_stays_short() -> None:
    with pytest.raises(BadInput, match=r"y runs from 0 to 99$"):
        select(Tensors({"x": torch.zeros(100, 1), "y": torch.arange(100)}), "class=100")
    assert len(str(spec({"ids": list(range(10_000))}))) < 120


def test_without_labels_or_groups_there_are_no_classes_or_groups() -> None:
    bare = Tensors({"x": torch.zeros(4, 2)})
    for request in ("class=1", "group=1"):
        with pytest.raises(BadInput, match="the rows have no"):
            select(bare, request)
    with pytest.raises(BadInput, match="targets are fractions"):
        select(Tensors({"x": torch.zeros(2, 1), "y": torch.tensor([0.5, 1.0])}), "class=1")


def test_of_several_labels_one_is_enough() -> None:
    rows = Tensors({"x": torch.zeros(3, 1), "y": torch.tensor([[1, 0], [0, 1], [1, 1]])})
    names = {"ill": Field("y", 0), "old": Field("y", 1)}
    assert select(rows, "class=old", fields=names).tolist() == [1, 2]
    assert select(rows, "class=0").tolist() == [0, 2]
    assert select(rows, "where=ill == 1 and old == 0", fields=names).tolist() == [0]
    with pytest.raises(BadInput, match="labels 0 to 1"):
        select(rows, "class=2")


@given(st.integers(0, 2**62), st.floats(0.05, 1.0), st.integers(1, 400))
def test_a_random_share_is_seeded_and_of_the_right_size(seed: int, share: float, length: int) -> None:
    rows = Tensors({"x": torch.zeros(length, 1)})
    if not round(share * length):
        return
    drawn = select(rows, {"random": share}, seed)
    assert len(set(drawn.tolist())) == len(drawn) == round(share * length)
    assert drawn.tolist() == select(rows, f"random={share!r}", seed).tolist() == sorted(drawn.tolist())


def test_another_seed_draws_other_rows() -> None:
    rows = Tensors({"x": torch.zeros(1000, 1)})
    first, second = (select(rows, "random=0.05", seed) for seed in (0, 1))
    assert first[:5].tolist() == [3, 10, 69, 73, 83]  # the same in every release and on every machine
    assert len(np.intersect1d(first, second)) < 15


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50), st.integers(0, 3), st.booleans())
def test_forget_and_retain_are_all_rows_once(labels: list[int], wanted: int, viewed: bool) -> None:
    y = torch.tensor(labels)
    rows: Source = Tensors({"x": torch.arange(float(len(y)))[:, None], "y": y}, ids=np.arange(len(y)) * 3 + 1)
    rows = rows.take(torch.arange(len(y)).flip(0)) if viewed else rows
    if wanted not in labels:
        with pytest.raises(BadInput, match="names none"):
            split(rows, {"class": wanted})
        return
    forget, retain = split(rows, {"class": wanted})
    assert sorted([*forget.ids.tolist(), *retain.ids.tolist()]) == sorted(rows.ids.tolist())
    assert (forget.batch(torch.arange(len(forget)))["y"] == wanted).all()
    assert (retain.batch(torch.arange(len(retain)))["y"] != wanted).all()
    assert forget.root is retain.root is rows.root  # views of the same data


def test_items_are_made_once_for_several_columns() -> None:
    rows = Items(Counted())
    made = rows.dataset.made  # type: ignore[attr-defined]
    found = select(rows, 'where=y == 3 and (site == "s1" or site != "s2") and id < 100')
    assert rows.dataset.made - made == 600  # type: ignore[attr-defined]
    assert found.tolist() == [i for i in range(100) if i % 4 == 3 and i % 5 != 2]


def test_a_column_of_a_memory_map_is_read_alone(tmp_path: Path) -> None:
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(50, 4))
    x[:] = np.arange(200).reshape(50, 4)
    rows = Tensors({"x": x, "y": torch.arange(50) % 2})
    forget, _ = split(rows, "where=second > 100", fields={"second": Field("x", 1)})
    assert forget.ids.tolist() == list(range(25, 50))
    assert forget.root is rows.root


# --- ids


def written(folder: Path, form: str, ids: list[Any]) -> Path:
    path = folder / f"ids{form}"
    if form == ".json":
        path.write_text(json.dumps(ids))
    elif form == ".npy":
        np.save(path, np.array(ids))
    elif form == ".csv":
        path.write_text("name,id\n" + "".join(f"x,{i}\n" for i in ids))
    else:
        path.write_text("".join(f"{i}\n\n" for i in ids))
    return path


@pytest.mark.parametrize("form", [".txt", ".json", ".npy", ".csv"])
@pytest.mark.parametrize("ids", [[3, 1, 17], ["a b", "c", "ü"]])
def test_ids_survive_a_file(tmp_path: Path, form: str, ids: list[Any]) -> None:
    known = np.array([*ids, 99 if isinstance(ids[0], int) else "z"])
    rows = Tensors({"x": torch.zeros(len(known), 1)}, ids=known)
    assert select(rows, f"ids={written(tmp_path, form, ids)}").tolist() == list(range(len(ids)))


@given(st.lists(st.integers(-(2**62), 2**62), unique=True, min_size=1), st.data())
def test_places_of_ids(ids: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(ids), min_size=1))
    for known, asked in ((np.array(ids), wanted), (np.array(list(map(str, ids))), wanted)):
        found = places_of(known, asked)
        assert {ids[i] for i in np.flatnonzero(found)} == set(wanted)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"a": 1}', "does not hold a list of ids"),
        ("b.json", "[1, ", "is not JSON"),
        ("c.npy", "hello", "cannot be read as an array"),
        ("d.csv", "name,place\nx,y\n", "has no column 'id'; it has name, place; write"),
        ("e.txt", b"\xff\xfe\x00", "is no text file"),
    ],
)
def test_a_file_without_ids_is_refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(BadInput, match=message):
        read_ids(tmp_path / name)


def test_a_column_of_a_csv_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,person\nx,4\ny,5\n")
    (tmp_path / "b.csv").write_text("anything\n4\n5\n")
    assert read_ids(f"{tmp_path / 'a.csv'}:person") == read_ids(tmp_path / "b.csv") == ["4", "5"]


def test_text_is_no_whole_number() -> None:
    with pytest.raises(BadInput, match=r"whole numbers: invalid literal.*'u1'"):
        places_of(np.array([1, 2]), ["u1"])
