"""Term: one summand of an objective. Rule: a Term that states its own gradient. Both add, scale and print."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, dataclass_transform

import torch
from torch import Tensor

from oblivio.core.grads import Grads, add
from oblivio.core.part import Part, children
from oblivio.core.source import Batch, Source

if TYPE_CHECKING:
    from oblivio.core.step import Step

On: TypeAlias = "str | Source"
Take: TypeAlias = "str | Callable[[Tensor, Batch], Tensor]"  # of outputs; a word is a method of the task
Coefficient: TypeAlias = "float | Callable[[Step], float]"
Weigh: TypeAlias = "Callable[[Step, On], Tensor]"
R = TypeVar("R", bound="Rule")


class Term(Part):
    """A value computed from a step. ``whole`` terms relate rows to each other and cannot be split into chunks."""

    whole: bool = False
    frozen: tuple[Take, ...] = ()  # what it reads of the frozen start, cached for ``on``

    @property
    def reads(self) -> tuple[On, ...]:
        """The sources it reads: ``on``, if it has that, and those of its inner terms."""
        own = (on,) if (on := getattr(self, "on", None)) is not None else ()
        inner = (r for _, child in children(self) if isinstance(child, Term) for r in child.reads)
        return tuple(dict.fromkeys((*own, *inner)))

    def __call__(self, step: Step) -> Tensor:
        raise NotImplementedError

    def grad(self, step: Step, graph: bool = False) -> Grads:
        """The gradient in the moving weights; ``graph`` keeps it differentiable."""
        return step.differentiate(self, graph) if step.supplied(self) else {}

    @property
    def summands(self) -> list[tuple[Coefficient, Term]]:
        """Coefficients and terms of the sum this is."""
        return [(1.0, self)]

    def map(self, name: str, f: Callable[[Term], Term]) -> Term:
        """The same sum with ``f`` applied to each summand that reads the source called ``name``."""
        return Sum([(c, f(t) if name in map(source_name, t.reads) else t) for c, t in self.summands])

    def weighted(self, by: Weigh) -> Term:
        """The same term, each example's value multiplied by ``by(step, on)`` of shape (n,) before the mean."""
        raise TypeError(f"{self!r} has no per-example values to weigh")

    def __add__(self, other: Term | int) -> Term:
        return self if other == 0 else Sum([*self.summands, *other.summands])  # type: ignore[union-attr]

    __radd__ = __add__

    def __neg__(self) -> Term:
        return -1.0 * self

    def __sub__(self, other: Term) -> Term:
        return self + -other

    def __rmul__(self, by: Coefficient) -> Term:
        return Sum([(_times(by, c), t) for c, t in self.summands])


class Rule(Term):
    """A Term that states its gradient: implement ``grad``. Its fields are terms and settings; see ``rule``."""

    def grad(self, step: Step, graph: bool = False) -> Grads:
        raise NotImplementedError


@dataclass_transform(eq_default=False)
def rule(cls: type[R]) -> type[R]:
    """Make a Rule class a dataclass that is compared by identity."""
    return dataclass(eq=False)(cls)


class Sum(Term):
    """Coefficients times terms. Those that are values share one backward, each Rule adds its own gradient.

    Where one of the values relates rows to each other, all are computed over the whole batch, on every process.
    """

    def __init__(self, parts: Iterable[tuple[Coefficient, Term]]) -> None:
        self.parts = list(parts)
        self.terms = [t for _, t in self.parts]
        self._values = [(c, t) for c, t in self.parts if not isinstance(t, Rule)]

    @property
    def summands(self) -> list[tuple[Coefficient, Term]]:
        return self.parts

    @property
    def whole(self) -> bool:  # type: ignore[override]
        """Whether one of the terms relates rows to each other."""
        return any(t.whole for t in self.terms)

    def __call__(self, step: Step) -> Tensor:
        total: Tensor | None = None
        for coefficient, t in self.parts:
            c = _value(coefficient, step)
            if c != 0 and step.supplied(t):
                value = t(step) if c == 1 else c * t(step)
                total = value if total is None else total + value
        return torch.zeros((), device=step.device) if total is None else total

    def grad(self, step: Step, graph: bool = False) -> Grads:
        if len(self._values) == len(self.parts):
            return step.differentiate(self, graph)
        total = step.differentiate(Sum(self._values), graph) if self._values else {}
        for coefficient, t in self.parts:
            if isinstance(t, Rule) and (c := _value(coefficient, step)) != 0 and step.supplied(t):
                total = add(total, t.grad(step, graph), c)
        return total

    def __repr__(self) -> str:
        words = []
        for c, t in self.parts:
            number = _printed(c if callable(c) else abs(c))
            sign = "-" if not callable(c) and c < 0 else "+"
            words += [sign, f"{t!r}" if number == "1" else f"{number} * {t!r}"]
        return " ".join(words[1:] if words[:1] == ["+"] else words)


def _times(a: Coefficient, b: Coefficient) -> Coefficient:
    if not callable(a) and not callable(b):
        return a * b
    if not callable(a) and a == 1:
        return b
    if not callable(b) and b == 1:
        return a
    if isinstance(b, _Product) and not callable(a) and not callable(b.a):
        return _Product(a * b.a, b.b)
    return _Product(a, b)


@dataclass(frozen=True)
class _Product:
    a: Coefficient
    b: Coefficient

    def __call__(self, step: Step) -> float:
        return _value(self.a, step) * _value(self.b, step)

    def __repr__(self) -> str:
        return f"{_printed(self.a)} * {_printed(self.b)}"


def _value(c: Coefficient, step: Step) -> float:
    return c(step) if callable(c) else c


def _printed(c: Coefficient) -> str:
    if not callable(c):
        return f"{c:g}"
    name = getattr(c, "__name__", None)
    return repr(c) if name is None else name.replace("<lambda>", "f") + "(step)"


class Function(Term):
    """A term made by ``@term`` from ``f(step, on, **settings)``."""

    def __init__(
        self,
        fn: Callable[..., Tensor],
        settings: dict[str, Any],
        whole: bool,
        frozen: tuple[Take, ...],
        taps: tuple[str, ...],
        weigh: Weigh | None = None,
    ) -> None:
        self.fn, self.settings, self.whole, self.weigh = fn, settings, whole, weigh
        self.frozen, self.taps = frozen, taps
        self.on: On | None = settings.get("on")

    def __call__(self, step: Step) -> Tensor:
        values = self.fn(step, **self.settings)
        if self.on is None or values.dim() == 0:
            return values * step.share if step.share != 1 else values
        if self.weigh is not None:
            values = values * self.weigh(step, self.on).detach()
        count = step.count(self.on)
        return values.mean() if values.numel() == count else values.sum() / count

    def weighted(self, by: Weigh) -> Function:
        if self.on is None:
            raise TypeError(f"{self!r} has no per-example values to weigh")
        whole = self.whole or getattr(by, "whole", False)
        return Function(self.fn, self.settings, whole, self.frozen, self.taps, by)

    def __repr__(self) -> str:
        words = [repr(v) if k == "on" else f"{k}={v!r}" for k, v in self.settings.items()]
        return f"{self.fn.__name__}({', '.join(words)})" + (f".weighted({self.weigh!r})" if self.weigh else "")


def term(
    fn: Callable[..., Tensor] | None = None,
    *,
    whole: bool = False,
    frozen: tuple[Take, ...] = (),
    taps: tuple[str, ...] = (),
) -> Any:
    """Make a Term of ``f(step, on, ...)``, which returns one value an example, shape (n,).

    The mean divides by the count of the whole batch, so that chunks and processes add up. With ``whole`` the function
    relates rows to each other and returns one value, shape (). ``frozen`` lists functions of (out, batch), or words for
    such of the task, that it reads through ``step.frozen``: they are computed once, from the model as it was at the
    start of the run. ``taps`` lists the layers whose inputs it reads through ``step.tap``; ``"features"`` is the
    problem's feature layer.
    """
    if fn is None:
        return lambda f: term(f, whole=whole, frozen=frozen, taps=taps)
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def make(*args: Any, **kwargs: Any) -> Function:
        bound = signature.bind(None, *args, **kwargs)
        settings = dict(list(bound.arguments.items())[1:])
        return Function(fn, settings, whole, frozen, taps)

    return make


def source_name(on: On) -> str:
    """The name of a source given by name or by object."""
    return on if isinstance(on, str) else on.name
