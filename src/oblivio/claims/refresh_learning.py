"""Refresh learning: unlearning each batch a little before it is learned does not cost replay anything, and helps it."""

from __future__ import annotations

from functools import cache
from typing import Any

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.continual import SPLIT, Course, course, split_digits
from oblivio.core.plan import Stage

SETTINGS: dict[str, Any] = {"buffer": 50, "batch": 10, "replay": 10, "epochs": 20, "lr": 0.05}
SHORT = 2  # epochs where runs are compared bit by bit


@cache
def plain(seed: int, epochs: int = SETTINGS["epochs"]) -> Course:
    """Replay alone."""
    return course(methods.er(**{**SETTINGS, "epochs": epochs}), split_digits("class", seed), seed)


def refreshed(delta: float, epochs: int = SETTINGS["epochs"]) -> Stage:
    """Replay with the piece on it."""
    plan: Stage = methods.refresh_learning(delta=delta)(methods.er(**{**SETTINGS, "epochs": epochs}))
    return plan


def far(delta: float, epochs: int = SETTINGS["epochs"]) -> Stage:
    """Ten times as far up."""
    return refreshed(10 * delta, epochs)


def without(delta: float, epochs: int = SETTINGS["epochs"]) -> Stage:
    """Replay without the piece."""
    return methods.er(**{**SETTINGS, "epochs": epochs})


def apart(a: Course, b: Course) -> float:
    """The largest difference of two weights."""
    pairs = zip(a.learner.model.parameters(), b.learner.model.parameters(), strict=True)
    return max(float((v - w).detach().abs().max()) for v, w in pairs)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy and forgetting at the end of the stream, and what a step of length 0 changes."""
    stream, er = split_digits("class", seed), plain(seed)
    piece = course(method(1e-3), stream, seed)
    still = apart(course(method(0.0, SHORT), stream, seed), plain(seed, SHORT))
    return {"er": er.acc, "er_fm": er.forgetting, "refresh": piece.acc, "refresh_fm": piece.forgetting, "still": still}


CLAIM = Claim(
    says="Experience replay with the piece (delta 1e-3) is as accurate as without and forgets less; with delta 0 it is "
    "the same, bit for bit; ten times as large a delta destroys learning.",
    trained=f"{SPLIT}; 20 epochs, batches of 10 new and 10 stored rows, 50 rows stored, SGD 0.05",
    method=refreshed,
    controls={"delta 0.01": far, "replay without the piece": without},
    measure=measure,
    holds=("refresh >= er - 0.005", "refresh_fm < er_fm", "still <= 0"),
)
