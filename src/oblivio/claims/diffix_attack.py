"""Diffix: noise that the data determines tells a secret of a person whose other attributes are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from oblivio.audits.queries import Condition, Fresh, Sticky, best, cloning, differential
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.core.seeds import mix

USERS, TRIALS = 3000, 600
KNOWN = (3, 5, 7)
DUMMIES = [Condition(0, value, "!=") for value in range(2, 7)]  # columns are 0 or 1


def table(k: int, seed: int) -> np.ndarray[Any, Any]:
    """Zeros and ones: k columns on which only user 0 is as they are, and their secret; shape (users, k + 1)."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 2, (USERS, k + 1))
    alike = (rows[:, :k] == rows[0, :k]).all(1)
    alike[0] = False
    rows[alike, rng.integers(0, k, int(alike.sum()))] ^= 1
    return rows


def told(method: Method, k: int, seed: int) -> dict[str, float]:
    """The share of trials, each on rows and noise of its own, in which an attack names the secret of user 0.

    ``one`` leaves one known column out, ``all`` each in turn, ``cloned`` one with five dummy conditions.
    """
    right: dict[str, int] = dict.fromkeys(("one", "all", "cloned"), 0)
    for trial in range(TRIALS):
        at = mix(seed, k, trial)
        rows = table(k, at)
        known, secret = {c: int(rows[0, c]) for c in range(k)}, int(rows[0, k])
        system = method(rows, at)
        right["one"] += best(differential(system, known, k)) == secret
        right["all"] += best(differential(system, known, k, removed=range(k))) == secret
        right["cloned"] += best(cloning(system, known, k, dummies=DUMMIES)) == secret
    return {name: count / TRIALS for name, count in right.items()}


def measure(method: Method, seed: int) -> Figures:
    """How often the attacks are right, by how many columns are known; a guess is right in half of the trials."""
    found = {f"{name}_{k}": value for k in KNOWN for name, value in told(method, k, seed).items()}
    return found | {f"fresh_{name}": value for name, value in told(Fresh, KNOWN[-1], seed).items()}


CLAIM = Claim(
    says="From two noisy counts a value, an attacker who knows k attributes of a person names a binary secret far more "
    "often than by guessing, the more so the more attributes (one_k); with each attribute left out in turn (all_k) or "
    "with dummy conditions (cloned_k) even more often. Where the noise is drawn anew for every question, all fail.",
    trained="nothing: tables of 3,000 users with random binary columns, 600 victims; sticky noise as in Diffix, or "
    "Laplace noise with epsilon 0.1 a question",
    method=Sticky,
    controls={"fresh Laplace noise for every question": Fresh},
    measure=measure,
    holds=(
        "one_3 > 0.65",
        "one_3 <= one_5 <= one_7",
        "one_7 > 0.78",
        "abs(fresh_one - 0.5) <= 0.05",
        "abs(fresh_all - 0.5) <= 0.05",
        "abs(fresh_cloned - 0.5) <= 0.05",
        "all_7 >= one_7",
        "cloned_7 >= one_7",
    ),
)
