"""Where: which weights may move. How: what is done to the gradient before the update and to the weights after."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from oblivio.core.grads import Grads
from oblivio.core.part import Part

if TYPE_CHECKING:
    from oblivio.core.problem import Problem
    from oblivio.core.step import Step

Selection = dict[str, "Tensor | None"]


def matches(name: str, pattern: str) -> bool:
    """Whether a weight's name fits ``"model.* !model.norm*"``: one of the plain words and none of those after ``!``."""
    words = pattern.split()
    return any(fnmatchcase(name, w) for w in words if w[0] != "!") and not any(
        fnmatchcase(name, w[1:]) for w in words if w[0] == "!"
    )


class Where(Part):
    """``select(problem)`` gives name to mask; None is the whole tensor, a float mask scales. Combine with | & ~."""

    writes = False

    def select(self, problem: Problem) -> Selection:
        """The weights that may move, and which of their entries."""
        raise NotImplementedError

    def __or__(self, other: Where | str) -> Where:
        return _Both(self, as_where(other), torch.maximum, union=True)

    def __and__(self, other: Where | str) -> Where:
        return _Both(self, as_where(other), torch.minimum, union=False)

    def __invert__(self) -> Where:
        return _Rest(self)


class Names(Where):
    """The weights whose names fit a pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def select(self, problem: Problem) -> Selection:
        return dict.fromkeys(problem.weights(self.pattern))

    def __repr__(self) -> str:
        return repr(self.pattern)


class _Both(Where):
    def __init__(self, a: Where, b: Where, mix: object, union: bool) -> None:
        self.a, self.b, self.mix, self.union = a, b, mix, union

    def select(self, problem: Problem) -> Selection:
        a, b = self.a.select(problem), self.b.select(problem)
        names = [n for n in {**a, **b} if self.union or (n in a and n in b)]
        return {n: self._mask(a.get(n, 0), b.get(n, 0)) for n in names}

    def _mask(self, a: Tensor | int | None, b: Tensor | int | None) -> Tensor | None:
        for x, y in ((a, b), (b, a)):
            if x is None:  # the whole tensor
                return None if self.union or y is None else y  # type: ignore[return-value]
            if isinstance(x, int):  # not in it at all: only a union comes here
                return y  # type: ignore[return-value]
        return self.mix(a.float(), b.float())  # type: ignore[operator,union-attr,no-any-return]

    def __repr__(self) -> str:
        return f"({self.a!r} {'|' if self.union else '&'} {self.b!r})"


class _Rest(Where):
    def __init__(self, of: Where) -> None:
        self.of = of

    def select(self, problem: Problem) -> Selection:
        taken = self.of.select(problem)
        rest: Selection = {n: None for n in problem.weights("*") if n not in taken}
        return rest | {n: 1 - m.float() for n, m in taken.items() if m is not None}

    def __repr__(self) -> str:
        return f"~{self.of!r}"


def as_where(value: Where | str) -> Where:
    """A pattern as a Where."""
    return Names(value) if isinstance(value, str) else value


class How(Part):
    """Several run in order; ``after(step)`` of the Part's hooks is where weights are pulled, projected or reset."""

    def __call__(self, grads: Grads, step: Step) -> Grads:
        """The gradient that the optimiser shall see; by default the one given."""
        return grads
