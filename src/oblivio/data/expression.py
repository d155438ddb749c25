"""Conditions over named columns: ``age > 60 and city in ("Bern", "Basel")``. Parsed here, never evaluated as code.

    either     := both ("or" both)*
    both       := negation ("and" negation)*
    negation   := "not" negation | "(" either ")" | comparison
    comparison := operand ("==" | "!=" | "<" | "<=" | ">" | ">=") operand | operand ["not"] "in" list
    operand    := number | "text" | 'text' | name | `name with spaces`
    list       := "(" literal ("," literal)* [","] ")"

Missing numbers compare as NaN does: only ``!=`` holds, so ``age != age`` finds them. Missing text is ``""``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput

Values: TypeAlias = "np.ndarray[Any, Any]"
Lookup: TypeAlias = Callable[[str], Values]

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
WORDS = {"and", "or", "not", "in"}
DEEPEST = 50  # well below Python's own limit of recursion
LONGEST_INTEGER = 18  # digits that fit in 64 bits

TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<name>[^\W\d]\w*|`[^`]+`)
    | (?P<sign>==|!=|<=|>=|<|>|\(|\)|,)
    )""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    """One word of a condition; ``kind`` is number, text, name, sign or end, ``at`` its place in the text from 0."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Name:
    """A column."""

    name: str
    at: int


@dataclass(frozen=True)
class Literal:
    """A number or a text."""

    value: float | int | str
    at: int


Operand: TypeAlias = Name | Literal


@dataclass(frozen=True)
class Comparison:
    """Two operands and the sign between them."""

    sign: str
    left: Operand
    right: Operand


@dataclass(frozen=True)
class Member:
    """Whether an operand is one of some literals."""

    operand: Operand
    values: tuple[Literal, ...]


@dataclass(frozen=True)
class Negation:
    """The rows that a condition leaves out."""

    of: Node


@dataclass(frozen=True)
class Junction:
    """Conditions joined by ``and`` or ``or``."""

    word: str
    parts: tuple[Node, ...]


Node: TypeAlias = Comparison | Member | Negation | Junction


@dataclass(frozen=True)
class Condition:
    """A parsed condition; see ``parse``."""

    text: str
    node: Node

    @property
    def names(self) -> list[str]:
        """The columns it mentions, each once."""
        return list(dict.fromkeys(_names(self.node)))

    def rows(self, lookup: Lookup, length: int) -> Values:
        """Which rows satisfy it.

        Args:
            lookup: the values of a column by its name, shape (length,), numbers or text; it may raise BadInput.
            length: number of rows.

        Returns:
            bool, shape (length,).

        Raises:
            BadInput: a column that ``lookup`` refuses, or text compared with a number; the message has the position.
        """
        return np.broadcast_to(_rows(self.node, _Columns(self.text, lookup)), (length,)).copy()


def parse(text: str) -> Condition:
    """Read a condition.

    Example:
        >>> import numpy as np
        >>> table = {"age": np.array([70, 30, 65]), "city": np.array(["Bern", "Bern", "Basel"])}
        >>> parse('age > 60 and city == "Bern"').rows(table.__getitem__, 3)
        array([ True, False, False])

    Raises:
        BadInput: what is not a condition, with the position (the first character is 1).
    """
    return Condition(text, _Parser(text).condition())


# --- reading


def fail(text: str, at: int, problem: str) -> NoReturn:
    """Raise BadInput with the position in ``text``."""
    near = f"near {text[at : at + 20]!r}" if at < len(text) else "at the end"
    raise BadInput(f"condition {text!r}: {problem} (character {at + 1}, {near})")


def _tokens(text: str) -> Iterator[Token]:
    end, at = len(text.rstrip()), 0
    while at < end:
        match = TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            fail(text, at, "a quote is not closed" if text[at] in "\"'`" else f"{text[at]!r} is not understood")
        kind = match.lastgroup or ""
        yield Token(kind, match[kind], match.start(kind))
        at = match.end()
    yield Token("end", "", end)


class _Parser:
    """Recursive descent over the grammar in the module's docstring, one method a rule."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens = text, list(_tokens(text))
        self.i = self.depth = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.i]

    def accept(self, *words: str) -> Token | None:
        """The next token where it is one of ``words``, else None and nothing is read."""
        token = self.token
        if token.kind not in ("name", "sign") or token.text not in words:
            return None
        self.i += 1
        return token

    def expect(self, word: str) -> None:
        if not self.accept(word):
            self.refuse(f"expected {word!r}")

    def refuse(self, problem: str) -> NoReturn:
        fail(self.text, self.token.at, problem)

    def condition(self) -> Node:
        node = self.either()
        if self.token.kind != "end":
            self.refuse("expected 'and', 'or' or the end")
        return node

    def either(self) -> Node:
        return self.joined("or", self.both)

    def both(self) -> Node:
        return self.joined("and", self.negation)

    def joined(self, word: str, part: Callable[[], Node]) -> Node:
        parts = [part()]
        while self.accept(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Junction(word, tuple(parts))

    def negation(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            self.refuse(f"nested deeper than {DEEPEST}")
        if self.accept("not"):
            node: Node = Negation(self.negation())
        elif self.accept("("):
            node = self.either()
            self.expect(")")
        else:
            node = self.comparison()
        self.depth -= 1
        return node

    def comparison(self) -> Node:
        left = self.operand()
        if sign := self.accept(*COMPARE):
            return Comparison(sign.text, left, self.operand())
        negated = self.accept("not")
        if not self.accept("in"):
            self.refuse("expected 'in'" if negated else f"expected a comparison ({' '.join(COMPARE)} in)")
        member = Member(left, self.members())
        return Negation(member) if negated else member

    def members(self) -> tuple[Literal, ...]:
        self.expect("(")
        values = [self.literal()]
        while self.accept(",") and self.token.text != ")":
            values.append(self.literal())
        self.expect(")")
        return tuple(values)

    def operand(self) -> Operand:
        token = self.token
        if token.kind != "name" or token.text in WORDS:
            return self.literal("a column, a number or a quoted text")
        self.i += 1
        return Name(token.text.strip("`"), token.at)

    def literal(self, wanted: str = "a number or a quoted text") -> Literal:
        token = self.token
        if token.kind not in ("number", "text"):
            self.refuse(f"expected {wanted}")
        self.i += 1
        return Literal(_number(token.text) if token.kind == "number" else _unquoted(token.text), token.at)


def _number(text: str) -> int | float:
    digits = text.lstrip("+-")
    return int(text) if digits.isdecimal() and len(digits) <= LONGEST_INTEGER else float(text)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


# --- evaluating


def _names(node: Node) -> Iterator[str]:
    match node:
        case Comparison(_, left, right):
            yield from (operand.name for operand in (left, right) if isinstance(operand, Name))
        case Member(operand, _):
            yield from (operand.name,) if isinstance(operand, Name) else ()
        case Negation(of):
            yield from _names(of)
        case Junction(_, parts):
            for part in parts:
                yield from _names(part)


class _Columns:
    """Operands as values, each column looked up once; errors get their position."""

    def __init__(self, text: str, lookup: Lookup) -> None:
        self.text, self.lookup = text, lookup
        self.known: dict[str, Values] = {}

    def __getitem__(self, operand: Operand) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if operand.name not in self.known:
            try:
                self.known[operand.name] = self.lookup(operand.name)
            except BadInput as error:
                fail(self.text, operand.at, str(error))
        return self.known[operand.name]

    def pair(self, left: Operand, right: Operand) -> tuple[Any, Any]:
        """The values of both; text and numbers do not compare."""
        values = self[left], self[right]
        if _is_text(values[0]) != _is_text(values[1]):
            fail(
                self.text,
                right.at,
                f"{_described(left, values[0])} cannot be compared with "
                f"{_described(right, values[1])}; quote text, leave numbers bare",
            )
        return values


def _rows(node: Node, columns: _Columns) -> Any:
    match node:
        case Comparison(sign, left, right):
            return COMPARE[sign](*columns.pair(left, right))
        case Member(operand, values):
            return np.logical_or.reduce([operator.eq(*columns.pair(operand, v)) for v in values])
        case Negation(of):
            return np.logical_not(_rows(of, columns))
        case Junction(word, parts):
            join = np.logical_and if word == "and" else np.logical_or
            return join.reduce(np.broadcast_arrays(*(_rows(part, columns) for part in parts)))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.kind in "USO")


def _described(operand: Operand, value: Any) -> str:
    kind = "text" if _is_text(value) else "a number" if isinstance(operand, Literal) else "numbers"
    return f"{operand.name!r} ({kind})" if isinstance(operand, Name) else kind
