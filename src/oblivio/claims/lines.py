"""Plans on the streams of ``continual``, each learned once: naive and joint lines are measured beside every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from oblivio import methods
from oblivio.claims.claim import Figures
from oblivio.claims.continual import SPLIT, course, permuted_digits, split_digits
from oblivio.core.plan import Stage
from oblivio.data.streams.experience import Stream

SCENARIOS = ("class", "task", "domain")
SETTINGS = {"lr": 0.05, "batch": 10, "epochs": 20}  # of the cards' checks: plain SGD
TRAINED = f"{SPLIT}; SGD at rate 0.05, batch 10, "


class Ends(NamedTuple):
    """A learner after the last experience: its accuracy, what it forgot, and what it knew of each when it came."""

    acc: float
    forgetting: float
    learned: float


_learned: dict[tuple[str, str, int, bool], Ends] = {}


def ends(plan: Stage, kind: str, seed: int, joint: bool = False) -> Ends:
    """A stream learned by a plan, or all its rows at once; measured once a process for all claims.

    Args:
        plan: a plan is known again by what it prints.
        kind: the scenario of the split digits, or ``permuted``.
        seed: of the stream and of the learner.
        joint: whether all experiences come as one.
    """
    key = (repr(plan), kind, seed, joint)
    if key not in _learned:
        stream = stream_of(kind, seed)
        done = course(plan, stream, seed, experiences=[stream.joint] if joint else None)
        found = {"fm": 0.0, "la": done.acc} if joint else done.history.metrics()
        _learned[key] = Ends(done.acc, found["fm"], found["la"])
    return _learned[key]


def stream_of(kind: str, seed: int) -> Stream:
    """The digits in a scenario, or permuted."""
    return permuted_digits(seed) if kind == "permuted" else split_digits(kind, seed)


def lines(kinds: Sequence[str], seed: int, **settings: Any) -> Figures:
    """The accuracy of naive and of joint training, ``naive_class``, ``joint_class``, ..."""
    plan = methods.naive(**{**SETTINGS, **settings})
    found: Figures = {}
    for kind in kinds:
        found[f"naive_{kind}"] = ends(plan, kind, seed).acc
        found[f"joint_{kind}"] = ends(plan, kind, seed, joint=True).acc
    return found


def naive(**settings: Any) -> Stage:
    """Naive training in place of a method, whatever settings that has: the control of most claims."""
    return methods.naive(**{name: settings[name] for name in ("lr", "batch", "epochs") if name in settings})
