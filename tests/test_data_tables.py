"""Tables: roles, categories, missing values, and a fitted part that knows only the rows it was fitted to."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from oblivio import data
from oblivio.core.errors import BadInput
from oblivio.data.roles import assign
from oblivio.modules.table import TablePreprocess
from oblivio.sources import as_source

HEAD = ["person", "age", "income", "city", "hospital", "note", "ill"]
PEOPLE = [
    ["p0", 70, 10.5, "Bern", "north", "x", "yes"],
    ["p1", 30, "", "Basel", "north", "x", "no"],
    ["p2", "", 20.0, "Bern", "south", "x", "yes"],
    ["p3", 50, 30.0, "", "south", "x", "no"],
    ["p4", 41, 12.0, "Basel", "", "x", "no"],
    ["p5", 42, 13.0, "Bern", "north", "x", "yes"],
    ["p6", 43, 14.0, "Chur", "north", "x", "no"],
    ["p7", 44, 15.0, "Bern", "south", "x", "yes"],
]
ROLES = {"person": "id", "ill": "target", "hospital": "group", "age": "input", "income": "input", "city": "input"}


def written(path: Path, rows: list[list[Any]] = PEOPLE, head: list[str] = HEAD) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


@pytest.fixture
def people(tmp_path: Path) -> data.Dataset:
    """Six rows to train on, two to test; `Chur` and `p6` are in the test file."""
    train, test = written(tmp_path / "train.csv", PEOPLE[:6]), written(tmp_path / "test.csv", PEOPLE[6:])
    return data.table(train, ROLES, task="binary", test=test)


def test_raw_columns_reach_the_model(people: data.Dataset) -> None:
    assert people.inputs == (3,)
    assert people.outputs == 1
    assert people.classes == ("no", "yes")
    assert people.preprocess == data.Layout(sizes=(0, 0, 2), gaps=(0, 1, 2))
    batch = people.train.batch(torch.arange(6))
    nan = torch.nan
    expected = [[70, 10.5, 1], [30, nan, 0], [nan, 20, 1], [50, 30, nan], [41, 12, 0], [42, 13, 1]]
    torch.testing.assert_close(batch["x"], torch.tensor(expected), equal_nan=True)
    assert batch["y"].tolist() == [1, 0, 1, 0, 0, 1]
    assert batch["group"].tolist() == [0, 0, 1, 1, -1, 0]
    assert people.train.ids.tolist() == ["p0", "p1", "p2", "p3", "p4", "p5"]
    assert people.test.batch(torch.arange(2))["x"].tolist() == [[43, 14, -1], [44, 15, 1]]  # Chur is not in training


def test_the_notes_say_what_was_done(people: data.Dataset) -> None:
    notes = "\n".join(people.notes)
    for part in ("6 rows to train on and 2 to test", "left out: note", "age: 1 missing values", "median",
                 "city: 2 categories", "all zeros"):  # fmt: skip
        assert part in notes


def test_rows_are_named_by_what_the_user_wrote(people: data.Dataset) -> None:
    def named(request: Any) -> list[int]:
        return data.select(people.train, request, fields=people.fields).tolist()

    assert named('where=city == "Bern" and age > 45') == [0]
    assert named("where=age != age") == [2]
    assert named('where=city == "" or hospital == ""') == [3, 4]
    assert named('where=ill == "yes"') == named("class=yes") == named("where=y == 1") == [0, 2, 5]
    assert named("group=south") == [2, 3]
    assert named('where=person in ("p1", "p4")') == named({"ids": ["p1", "p4"]}) == [1, 4]


def test_one_file_is_split_by_class(tmp_path: Path) -> None:
    found = data.load(str(written(tmp_path / "all.csv")), roles=ROLES, task="classification", test=0.5, seed=1)
    assert found.outputs == 2
    for half in (found.train, found.test):
        assert half.batch(torch.arange(4))["y"].sum() == 2
    assert not np.intersect1d(found.train.ids, found.test.ids).size


def test_without_named_inputs_every_other_column_is_one(tmp_path: Path) -> None:
    found = data.table(written(tmp_path / "a.csv"), {"ill": "target", "person": "id"}, task="binary", test=0.25)
    assert list(found.fields) == ["age", "income", "city", "hospital", "note", "ill", "person"]
    assert found.inputs == (5,)


def test_parquet_holds_types(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({
        "id": [2**53 + i for i in range(4)], "flag": [True, False, True, False],
        "size": pd.Categorical(["s", "l", "m", "s"], categories=["s", "m", "l", "xl"], ordered=True),
        "count": pd.array([1, None, 3, 4], dtype="Int64"),
        "maybe": pd.Series([True, None, False, True], dtype=object),
        "price": [1.5, 2.5, 3.5, 4.5], "cost": [1.0, 2.0, 3.0, 4.0],
    })  # fmt: skip
    frame.to_parquet(tmp_path / "a.parquet")
    roles = {"id": "id", "price": "target", "cost": "target"}
    found = data.load(tmp_path / "a.parquet", roles=roles, task="regression", test=0.25)
    assert found.fields["size"].words == ("s", "m", "l", "xl")  # the declared order
    assert found.preprocess == data.Layout(sizes=(0, 4, 0, 0), gaps=(2, 3))
    assert (found.train.ids >= 2**53).all()
    y = found.train.batch(torch.arange(3))["y"]
    assert (y.dtype, y.shape, found.outputs) == (torch.float32, (3, 2), 2)
    expensive = data.select(found.train, f"where=price > 2 or id == {2**53}", fields=found.fields)
    assert len(expensive) == 3


def test_several_targets_are_labels(tmp_path: Path) -> None:
    rows = [[i, i % 2, int(i > 3)] for i in range(8)]
    path = written(tmp_path / "a.csv", rows, ["size", "odd", "large"])
    found = data.table(path, {"odd": "target", "large": "target"}, task="multilabel", test=0.25)
    assert (found.outputs, found.classes) == (2, ("odd", "large"))
    y = found.train.batch(torch.arange(6))["y"]
    assert (y.dtype, y.shape) == (torch.int64, (6, 2))
    odd = data.select(found.train, "class=odd", fields=found.fields)
    assert (found.train.ids[odd] % 2 == 1).all()


def test_classes_that_are_numbers_keep_their_names(tmp_path: Path) -> None:
    rows = [[i, [10, 20, 30][i % 3]] for i in range(9)]
    path = written(tmp_path / "a.csv", rows, ["size", "kind"])
    found = data.table(path, {"kind": "target"}, task="classification", test=3 / 9)
    assert found.classes == ("10", "20", "30")
    assert len(data.select(found.train, "class=20", fields=found.fields)) == 2
    assert len(data.select(found.train, "where=kind >= 20", fields=found.fields)) == 4


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"agee": "input"}, {}, "the table has no column 'agee'; did you mean 'age'?"),
        ({"age": "inputs"}, {}, "column 'age' has the unknown role 'inputs'; did you mean 'input'?"),
        ({"note": "text"}, {}, "column 'note' is text, and this release has no model of text"),
        ({"note": "id"}, {}, "person, note all have the role id; one can"),
        ({"note": "image"}, {}, "'note' is an image and 'age' an input"),
        ({"ill": "input"}, {}, "no column has the role target"),
        ({"note": "target"}, {}, "note, ill are all targets"),
        ({}, {"task": "clasification"}, "did you mean 'classification'?"),
        ({}, {"task": "regression"}, "target 'ill' holds text; numbers are needed"),
        ({}, {"task": "multilabel"}, "target 'ill' holds text; numbers are needed"),
        ({"ill": "input", "age": "target"}, {}, "target 'age' is missing in 1 rows (rows [2], counted from 0)"),
        ({"ill": "input", "city": "target"}, {}, "target 'city' is missing in 1 rows"),
        ({"person": "input", "hospital": "id"}, {}, "column 'hospital' is the id, and row 4 has none"),
        ({"person": "input", "note": "id"}, {}, "ids must differ; ['x'] occur more than once"),
        ({}, {"test": 0}, "leaves no row on one side"),
    ],
)
def test_roles_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput) as raised:
        data.table(written(tmp_path / "a.csv"), {**ROLES, **changes}, **{"task": "binary", **options})
    assert message in str(raised.value)


def test_targets_that_do_not_suit_the_task_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", [[i, i / 2, i] for i in range(6)], ["a", "half", "whole"])
    for target, task, message in (
        ("half", "classification", "holds numbers with fractions"),
        ("whole", "binary", "has 6 values, a binary task has two"),
        ("whole", "multilabel", "holds other values than 0 and 1"),
    ):
        with pytest.raises(BadInput, match=message):
            data.table(path, {target: "target"}, task=task)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_text("no")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("a,b\n")
    for name in ("broken.parquet", "empty.csv", "absent.csv", "head.csv", "table.xlsx"):
        with pytest.raises(BadInput, match=r"cannot be read|does not exist|has no rows|is no table"):
            data.table(tmp_path / name, {"b": "target"}, task="binary")
    other = written(tmp_path / "other.csv", [[1]], ["age"])
    with pytest.raises(BadInput, match="the table to test on lacks the columns 'person'"):
        data.table(written(tmp_path / "a.csv"), ROLES, task="binary", test=other)


def test_columns_that_are_neither_numbers_nor_text_are_refused(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"y": [0, 1], "when": pd.to_datetime(["2020-01-01", "2021-01-01"]), "list": [[1], [2]]})
    frame.to_parquet(tmp_path / "a.parquet")
    for column, held in (("when", "datetime64"), ("list", "mixed")):
        with pytest.raises(BadInput, match=f"column '{column}' holds {held}"):
            data.table(tmp_path / "a.parquet", {"y": "target", column: "input"}, task="binary", test=0.5)


def test_a_column_is_one_kind_in_both_files_and_has_values(tmp_path: Path) -> None:
    head, roles = ["a", "b", "y"], {"y": "target"}
    train = written(tmp_path / "train.csv", [[1, "", 0], [2, "", 1]], head)
    for rows, message in (([["few", "", 1]], "'a' holds mixed"), ([[3, "x", 1]], "'b' has no value in any row")):
        test = written(tmp_path / "test.csv", rows, head)
        with pytest.raises(BadInput, match=message):
            data.table(train, roles, task="binary", test=test)


def test_names_are_no_categories(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", [[f"n{i}", i % 2] for i in range(1500)], ["name", "y"])
    with pytest.raises(BadInput, match="'name' holds 1,200 different texts, and categories end at 1,000"):
        data.table(path, {"y": "target"}, task="binary")
    path = written(tmp_path / "b.csv", [[f"n{i}", i % 2, i] for i in range(1500)], ["name", "y", "size"])
    found = data.table(path, {"y": "target", "name": "group"}, task="binary")  # groups may be as many as there are
    assert len(found.fields["name"].words or ()) == 1500


def test_without_pandas_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BadInput, match=r"pandas is not installed; run: pip install 'oblivio\[tables\]'"):
        data.table(written(tmp_path / "a.csv"), ROLES, task="binary")


def test_columns_without_a_role() -> None:
    columns = ["a", "b", "c"]
    assert assign(columns, {"a": "target"}).inputs == ("b", "c")
    role = assign(columns, {"a": "target", "b": "input"})
    assert (role.inputs, role.left_out) == (("b",), ("c",))
    with pytest.raises(BadInput, match="no column is left as an input"):
        assign(["a"], {"a": "target"})


# --- the fitted part


def fitted_to(x: torch.Tensor, sizes: tuple[int, ...], gaps: tuple[int, ...]) -> TablePreprocess:
    module = TablePreprocess(sizes, gaps)
    module.refit(as_source(x))
    return module


def test_the_fitted_part_by_hand() -> None:
    nan = torch.nan
    x = torch.tensor([[1.0, 0], [3, 1], [nan, nan], [8, 1]])
    module = fitted_to(x, (0, 3), (0, 1))
    filled = torch.tensor([1.0, 3, 3, 8])  # 3 is the median
    scaled = (filled - filled.mean()) / filled.std(correction=0)
    expected = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0, 1, 0, 0, 0]])
    torch.testing.assert_close(module(x), torch.cat([scaled[:, None], expected], dim=1))
    assert module.outputs == module(x).shape[1] == 6
    assert not list(module.parameters())


def test_what_the_fit_did_not_see_is_all_zeros() -> None:
    module = fitted_to(torch.tensor([[1.0, 0], [2, 0]]), (0, 2), (0, 1))
    unseen = module(torch.tensor([[torch.nan, 1], [1, -1], [1, torch.nan], [1, 0]]))
    assert unseen[:, 1:].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_a_constant_or_empty_column_stays_finite() -> None:
    module = fitted_to(torch.tensor([[0.1, torch.nan], [0.1, torch.nan], [0.1, torch.nan]]), (0, 0), (1,))
    assert module(torch.tensor([[0.1, torch.nan], [1.1, 5.0]])).isfinite().all()
    torch.testing.assert_close(module(torch.tensor([[0.1, 0.0]])), torch.zeros(1, 3))


def test_a_reference_knows_nothing_of_the_forgotten_rows(people: data.Dataset) -> None:
    """The fitted part of a model retrained without rows equals one fitted where they never were."""
    forget, retain = data.split(people.train, 'where=city == "Basel"', fields=people.fields)
    original, reference = (data.fit_preprocess(people.preprocess, rows) for rows in (people.train, retain))
    alone = fitted_to(retain.batch(torch.arange(len(retain)))["x"], (0, 0, 2), (0, 1, 2))
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(value, alone.state_dict()[name])
    basel = forget.batch(torch.arange(len(forget)))["x"]
    assert original(basel)[:, 2].tolist() == [1, 1]
    assert reference(basel)[:, 2:4].tolist() == [[0, 0], [0, 0]]
    assert not torch.equal(original.median, reference.median)  # type: ignore[arg-type]


def test_the_fitted_part_is_saved_with_the_model(people: data.Dataset) -> None:
    fitted = data.fit_preprocess(people.preprocess, people.train)
    described = people.describe()["preprocess"]
    model, other = nn.Sequential(fitted), nn.Sequential(TablePreprocess(**described))
    assert other.load_state_dict(model.state_dict()) is not None
    x = people.test.batch(torch.arange(2))["x"]
    torch.testing.assert_close(model(x), other(x))


def test_without_preprocessing_rows_pass_unchanged(people: data.Dataset) -> None:
    assert isinstance(data.fit_preprocess(None, people.train), nn.Identity)
