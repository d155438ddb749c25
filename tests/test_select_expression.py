"""Conditions: what is read equals what NumPy computes, and nothing else is ever run."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oblivio.core.errors import BadInput
from oblivio.data.expression import COMPARE, DEEPEST, parse

TABLE = {
    "age": np.array([70.0, 30.0, np.nan, 65.0, 30.0, -2.5]),
    "n_visits": np.array([3, 0, 7, 3, 12, 1]),
    "blood pressure": np.array([120, 80, 95, 130, 80, 100], dtype=np.float32),
    "city": np.array(["Bern", "Basel", "", 'a "b"', "Bern", "it's"]),
    "id": np.array(["u1", "u2", "u3", "u4", "u5", "u6"]),
}
ROWS = 6
NUMBERS = ["age", "n_visits", "blood pressure"]
TEXTS = ["city", "id"]

Reference = Callable[[], Any]


def lookup(name: str) -> np.ndarray[Any, Any]:
    if name not in TABLE:
        raise BadInput(f"no column {name!r}")
    return TABLE[name]


def rows(text: str) -> list[int]:
    return np.flatnonzero(parse(text).rows(lookup, ROWS)).tolist()


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def operands(draw: st.DrawFn, names: list[str], values: st.SearchStrategy[Any]) -> tuple[str, Any]:
    if draw(st.booleans()):
        name = draw(st.sampled_from(names))
        return (f"`{name}`" if " " in name else name), TABLE[name]
    value = draw(values)
    return (quoted(value) if isinstance(value, str) else repr(value)), value


VALUES = {
    "number": st.integers(-100, 100) | st.floats(-1e6, 1e6) | st.sampled_from([30.0, 65, 120]),
    "text": st.sampled_from(["Bern", "Basel", 'a "b"', "it's", "", "u3"]) | st.text(max_size=5),
}


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Reference]:
    kind = draw(st.sampled_from(["number", "text"]))
    names, values = (NUMBERS if kind == "number" else TEXTS), VALUES[kind]
    left, a = draw(operands(names, values))
    if draw(st.booleans()):
        sign = draw(st.sampled_from(sorted(COMPARE)))
        right, b = draw(operands(names, values))
        return f"{left} {sign} {right}", lambda: COMPARE[sign](a, b)
    members = draw(st.lists(values, min_size=1, max_size=4))
    negated = draw(st.booleans())
    text = ", ".join(quoted(m) if isinstance(m, str) else repr(m) for m in members)
    inside = lambda: np.logical_or.reduce([operator.eq(a, m) for m in members])  # noqa: E731
    if negated:
        return f"{left} not in ({text})", lambda: np.logical_not(inside())
    return f"{left} in ({text},)", inside


def joined(word: str, join: Callable[[Any, Any], Any]) -> Callable[[Any], tuple[str, Reference]]:
    return lambda pair: (f"({pair[0][0]}) {word} ({pair[1][0]})", lambda: join(pair[0][1](), pair[1][1]()))


CONDITIONS = st.recursive(
    comparisons(),
    lambda inner: (
        st.tuples(inner, inner).map(joined("and", np.logical_and))
        | st.tuples(inner, inner).map(joined("or", np.logical_or))
        | inner.map(lambda one: (f"not ({one[0]})", lambda: np.logical_not(one[1]())))
    ),
    max_leaves=6,
)


@given(CONDITIONS)
def test_a_condition_holds_where_numpy_says(condition: tuple[str, Reference]) -> None:
    text, reference = condition
    found = parse(text).rows(lookup, ROWS)
    assert found.dtype == bool
    assert found.tolist() == np.broadcast_to(reference(), (ROWS,)).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age > 60", [0, 3]),
        ("60<age", [0, 3]),
        ("age>-3", [0, 1, 3, 4, 5]),
        ('age > 60 and city == "Bern"', [0]),
        ("city == 'Bern' or n_visits >= 3 and not age == 70", [0, 2, 3, 4]),  # `and` binds before `or`
        ("not age == 70 and n_visits == 3", [3]),  # and `not` before `and`
        ("not (age == 70 and n_visits == 3)", [1, 2, 3, 4, 5]),
        ("not not age == 70", [0]),
        ("`blood pressure` in (80, 95)", [1, 2, 4]),
        ("city not in ('Bern', 'Basel')", [2, 3, 5]),
        ("city == 'a \"b\"' or city == 'it\\'s'", [3, 5]),
        ("age != age", [2]),  # missing numbers
        ("city == ''", [2]),  # missing text
        ("1 == 1", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_condition_by_hand(text: str, expected: list[int]) -> None:
    assert rows(text) == expected


def test_a_column_is_looked_up_once() -> None:
    asked: list[str] = []
    condition = parse("age > 1 and (age < 9 or n_visits in (1, 2)) and not age == 5")
    condition.rows(lambda name: asked.append(name) or lookup(name), ROWS)  # type: ignore[func-returns-value]
    assert asked == condition.names == ["age", "n_visits"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a column, a number or a quoted text (character 1, at the end)"),
        ("age >", "expected a column, a number or a quoted text (character 6, at the end)"),
        ("age > and x", "expected a column, a number or a quoted text (character 7, near 'and x')"),
        ("age", "expected a comparison (== != < <= > >= in) (character 4, at the end)"),
        ("age = 3", "'=' is not understood (character 5, near '= 3')"),
        ("(age > 3", "expected ')' (character 9, at the end)"),
        ("age > 3)", "expected 'and', 'or' or the end (character 8, near ')')"),
        ("1 < age < 5", "expected 'and', 'or' or the end (character 9, near '< 5')"),
        ("age not 5", "expected 'in' (character 9, near '5')"),
        ("age in 5", "expected '(' (character 8, near '5')"),
        ("age in (n_visits)", "expected a number or a quoted text (character 9, near 'n_visits)')"),
        ("age in ()", "expected a number or a quoted text (character 9, near ')')"),
        ('city == "Bern', "a quote is not closed (character 9, near '\"Bern')"),
        ("city > 3", "'city' (text) cannot be compared with a number; quote text, leave numbers bare (character 8"),
        ('age == "70"', "'age' (numbers) cannot be compared with text; quote text, leave numbers bare (character 8"),
        ("agee > 3", "no column 'agee' (character 1, near 'agee > 3')"),
    ],
)
def test_an_error_points_at_the_position(text: str, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        rows(text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('x') == 0", "age.__class__ == 1", "len(city) > 3", "age + 1 > 3", "[a for a in age] == 1",
     "lambda: 1", "age[0] == 1", "f'{age}' == '1'", "age > 3; import os", "age := 3", "print('x')", "{}",
     "age ** 9 > 1"],
)  # fmt: skip
def test_code_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        rows(text)


@given(st.text(alphabet=st.sampled_from("ab1.'\"` ()<>=!,andorti\\\n-e"), max_size=40) | st.text(max_size=30))
def test_any_text_is_a_condition_or_bad_input(text: str) -> None:
    try:
        parse(text).rows(lookup, ROWS)
    except BadInput as error:
        assert "character" in str(error)  # noqa: PT017


def test_depth_has_an_end() -> None:
    assert rows("(" * (DEEPEST - 1) + "age > 60" + ")" * (DEEPEST - 1)) == [0, 3]
    for text in ("(" * 10_000, "not " * 10_000 + "age > 60"):
        with pytest.raises(BadInput, match="nested deeper"):
            parse(text)


def test_whole_numbers_stay_exact() -> None:
    account = np.array([2**53, 2**53 + 1])
    assert parse(f"account == {2**53 + 1}").rows(lambda _: account, 2).tolist() == [False, True]
    assert parse("account < " + "9" * 5000).rows(lambda _: account, 2).all()
