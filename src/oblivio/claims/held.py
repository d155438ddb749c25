"""What the claims on held weights share: courses learned once, and training that holds nothing, or all alike."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.continual import Course, course, permuted_digits, split_digits
from oblivio.core.plan import Stage
from oblivio.methods.continual.regularisation._held import held
from oblivio.terms import Anchor, Ones

HIDDEN = (200, 200)
PERMUTED = "digits in five tasks, each with its own order of the pixels, ten shared outputs; MLP 64-200-200-10"
SPLIT = "digits in five tasks of two classes, in an order of classes that each seed draws; MLP 64-200-200-10"
ON_PERMUTED: dict[str, Any] = {"lr": 0.02, "epochs": 10, "batch": 10}
ON_SPLIT: dict[str, Any] = {"lr": 0.05, "epochs": 20, "batch": 10}
L2 = 0.1  # the best of 0.03, 0.1, 0.3, 1 on seed 100

_learned: dict[tuple[str, str, int], Course] = {}


def learned(plan: Stage, kind: str, seed: int, **options: Any) -> Course:
    """The stream ``kind``, a scenario of the split digits or ``permuted``, learned by a plan; once a process."""
    key = (f"{plan!r} {options}", kind, seed)
    if key not in _learned:
        stream = permuted_digits(seed) if kind == "permuted" else split_digits(kind, seed)
        _learned[key] = course(plan, stream, seed, hidden=HIDDEN, **options)
    return _learned[key]


def first(of: Course) -> float:
    """Accuracy on the first task after the last one."""
    return float(of.history.matrix[-1, 0])


def free(**settings: Any) -> Stage:
    """Training that holds nothing: the method as a no-op."""
    common = {"lr": 0.02, "epochs": 10, "batch": 10}
    return methods.naive(**{name: settings.get(name, value) for name, value in common.items()})


def alike(**settings: Any) -> Stage:
    """Every weight held alike at its latest value: plain L2."""
    common = {"lr": 0.02, "epochs": 10, "batch": 10}
    common = {name: settings.get(name, value) for name, value in common.items()}
    return held(Anchor(Ones(), latest=True), L2, "proximal", momentum=0.0, **common)  # type: ignore[arg-type]
