"""Condition: what a claim says must hold, as a comparison of named figures that is parsed, never run as code."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., float]] = {"abs": abs, "count": lambda *met: sum(met), "max": max, "min": min}


@dataclass(frozen=True)
class Condition:
    """``"salun <= random_mask - 0.08"``: numbers, names of figures, + - * /, abs, max, min, and a comparison.

    ``count(a <= 1, b <= 1) >= 1`` asks how many of several comparisons hold.

    Example:
        >>> condition = Condition("abs(salun - relabel) <= 0.05")
        >>> condition.met({"salun": 0.12, "relabel": 0.15}), condition.numbers({"salun": 0.12, "relabel": 0.15})
        (True, 'abs(0.12 - 0.15) <= 0.05')

    Raises:
        ValueError: anything else, or no figure in it: such a condition says nothing.
    """

    text: str

    def __post_init__(self) -> None:
        self.met(dict.fromkeys(self.names, 1.0))
        if not self.names:
            raise ValueError(f"{self.text!r} names no figure, so it says nothing")

    @property
    def names(self) -> set[str]:
        """The figures it needs."""
        found = {node.id for node in ast.walk(self._comparison) if isinstance(node, ast.Name)}
        return found - FUNCTIONS.keys()

    def met(self, figures: Mapping[str, float]) -> bool:
        """Whether it holds of these figures."""
        return bool(_value(self._comparison, figures))

    def numbers(self, figures: Mapping[str, float]) -> str:
        """The same comparison with the figures in it."""
        return re.sub(r"[A-Za-z_]\w*", lambda name: _shown(name[0], figures), self.text)

    @property
    def _comparison(self) -> ast.Compare:
        try:
            node = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            raise ValueError(f"{self.text!r} is no comparison: {error.msg}") from None
        if not isinstance(node, ast.Compare):
            raise ValueError(f"{self.text!r} compares nothing")
        return node


def _shown(name: str, figures: Mapping[str, float]) -> str:
    return f"{figures[name]:.4g}" if name in figures else name


def _operator(op: ast.AST) -> Callable[[Any, Any], Any]:
    try:
        return OPERATORS[type(op)]
    except KeyError:
        raise ValueError(f"{type(op).__name__} is no operator of a condition") from None


def _value(node: ast.AST, figures: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return figures[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, figures)
        case ast.BinOp(left=left, op=op, right=right):
            return float(_operator(op)(_value(left, figures), _value(right, figures)))
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_value(each, figures) for each in (left, *others)]
            return float(all(_operator(op)(*pair) for op, pair in zip(ops, pairwise(values), strict=True)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return float(FUNCTIONS[name](*(_value(arg, figures) for arg in args)))
    raise ValueError(f"{ast.unparse(node)!r} is no part of a condition")
