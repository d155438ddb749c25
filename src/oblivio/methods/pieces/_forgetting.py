"""The part of a plan's objectives that forgets, for pieces that change it."""

from __future__ import annotations

from collections.abc import Callable

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.term import On, Sum, Term, source_name
from oblivio.sources.derived import Derived


def put(plan: Stage, change: Callable[[Term], Term], piece: str) -> Stage:
    """The plan with ``change`` on what of each objective reads ``forget``, as one sum with its coefficients and signs.

    Raises BadInput, which names the piece, where there is nothing to change.
    """
    losses = [part.loss for _, part in walk(plan) if isinstance(part, Descent)]
    if losses and not any(forgets(t) for loss in losses for _, t in loss.summands):
        raise BadInput(f"{piece} changes the terms that read forget, and {plan!r} has none")
    return plan.but(loss=lambda total: _changed(total, change))


def forgets(t: Term) -> bool:
    """Whether a term reads ``forget``, or rows made of it alone."""
    return any(map(_of_forget, t.reads))


def _of_forget(on: On) -> bool:
    return source_name(on) == "forget" or (isinstance(on, Derived) and all(map(_of_forget, on.of)))


def _changed(total: Term, change: Callable[[Term], Term]) -> Term:
    forget = [(c, t) for c, t in total.summands if forgets(t)]
    rest = [(c, t) for c, t in total.summands if not forgets(t)]
    return Sum([(1.0, change(Sum(forget))), *rest]) if forget else total
