"""Attacks on a system that answers counting queries with sticky noise: noise that depends on the data betrays them.

The system is modelled after Diffix; the attacks are those of Gadotti et al., When the Signal is in the Noise, USENIX
Security 2019. ``Sticky`` has what they exploit, ``Fresh`` has not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from scipy.special import ndtri

from oblivio.core.errors import BadInput

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Scores = dict[int, float]  # of every value that the secret may have: the higher, the likelier
LEAST = 2  # users that an answer is about at least


@dataclass(frozen=True)
class Condition:
    """A column that equals a value, or does not."""

    column: int
    value: int
    sign: Literal["=", "!="] = "="

    def of(self, table: np.ndarray[Any, Any]) -> Mask:
        """The users who meet it, shape (users,). Raises BadInput for a column that the table has not."""
        if not 0 <= self.column < table.shape[1]:
            raise BadInput(f"column {self.column} is asked of a table with {table.shape[1]} columns; count from 0")
        met: Mask = (table[:, self.column] == self.value) == (self.sign == "=")
        return met


class Queries(Protocol):
    """What an attack asks: how many users meet all conditions, or None where the answer is withheld."""

    def count(self, conditions: Sequence[Condition]) -> float | None:
        """A noisy count."""


@dataclass(frozen=True)
class Sticky:
    """True count plus two draws of N(0, 1) a condition: one fixed by the condition, one by it and all matching users.

    The same question has the same answer for ever, so that asking again averages nothing out. Answers about fewer than
    two users, or fewer than a number near 4 that the set of users fixes, are withheld.

    Attributes:
        table: integers, a row a user, shape (users, columns).
        salt: the secret of the system: another one draws all noise anew.
    """

    table: np.ndarray[Any, Any]
    salt: int = 0

    def count(self, conditions: Sequence[Condition]) -> float | None:
        """The answer; the order of the conditions does not matter, nor that one is given twice."""
        met = users(self.table, conditions)
        group, total = np.packbits(met).tobytes(), int(met.sum())
        if total < LEAST or total < 4 + 0.5 * self._normal("threshold", group):
            return None
        asked = {f"{int(c.column)} {c.sign} {int(c.value)}" for c in conditions}
        return math.fsum([total, *(self._normal(c, layer) for c in asked for layer in (b"", group))])

    def _normal(self, of: str, group: bytes) -> float:
        """A standard normal that salt, condition and users determine, on any machine."""
        hashed = hashlib.blake2b(f"{int(self.salt)}|{of}|".encode() + group, digest_size=8).digest()
        return float(ndtri((int.from_bytes(hashed, "big") + 0.5) / 2**64))


@dataclass(frozen=True)
class Fresh:
    """True count plus Laplace noise drawn anew for every question: epsilon-differentially private a question.

    Attributes:
        table: integers, a row a user, shape (users, columns).
        salt: seed of the noise.
        epsilon: of one question; the noise has the scale 1 / epsilon.
    """

    table: np.ndarray[Any, Any]
    salt: int = 0
    epsilon: float = 0.1
    _rng: list[np.random.Generator] = field(default_factory=list, repr=False, compare=False)

    def count(self, conditions: Sequence[Condition]) -> float | None:
        """The answer; it is never withheld."""
        if not self._rng:
            self._rng.append(np.random.default_rng(self.salt))
        return float(users(self.table, conditions).sum() + self._rng[0].laplace(scale=1 / self.epsilon))


def users(table: np.ndarray[Any, Any], conditions: Sequence[Condition]) -> Mask:
    """The users who meet all conditions, shape (users,)."""
    met = np.ones(len(table), dtype=bool)
    for condition in conditions:
        met &= condition.of(table)
    return met


# --- attacks


def differential(
    system: Queries, known: Mapping[int, int], secret: int, values: Sequence[int] = (0, 1),
    removed: Sequence[int] | None = None,
) -> Scores:  # fmt: skip
    """Log-likelihood ratios from the difference of two answers, with and without the victim if they have the value.

    Where the victim has not, both questions are about the same users, shared noise cancels, and the difference is
    N(0, 2); where they have, it is N(1, 2k + 2) for k known columns. Two questions a value and removed column.

    Args:
        system: answers.
        known: columns and the values there that only the victim has together.
        secret: the column to learn.
        values: that it may have.
        removed: columns of ``known`` that are left out in turn; default: the first. More give more evidence.

    Returns:
        The score of every value; 0 where the answers were withheld. ``best`` chooses.
    """
    n = len(known)

    def ratio(v: int, out: int) -> float:
        base = _base(known, out, secret, v)
        answers = system.count(base), system.count([*base, Condition(out, known[out], "!=")])
        if answers[0] is None or answers[1] is None:
            return 0.0
        d = answers[0] - answers[1]
        return float(-((d - 1) ** 2) / (4 * n + 4) + d**2 / 4 - 0.5 * np.log((2 * n + 2) / 2))

    return _summed(known, values, removed, ratio)


def cloning(
    system: Queries, known: Mapping[int, int], secret: int, values: Sequence[int] = (0, 1),
    removed: Sequence[int] | None = None, *, dummies: Sequence[Condition],
) -> Scores:  # fmt: skip
    """The variance of the same difference over conditions that everybody meets.

    Each such condition adds noise of its own, which cancels in the difference if both questions are about the same
    users: the variance is 0, and 2 where the victim has the value. Two questions a dummy, value and removed column.

    Args:
        system: answers.
        known: columns and the values there that only the victim has together.
        secret: the column to learn.
        values: that it may have.
        removed: columns of ``known`` that are left out in turn; default: the first.
        dummies: conditions that every user meets, two or more.

    Returns:
        The summed variance of every value; 0 where the answers were withheld. Raises BadInput for fewer dummies.
    """
    if len(dummies) < 2:
        raise BadInput(f"{len(dummies)} dummy conditions have no variance; give two or more that every user meets")

    def spread(v: int, out: int) -> float:
        base = _base(known, out, secret, v)
        cut = Condition(out, known[out], "!=")
        pairs = [(system.count([*base, d]), system.count([*base, d, cut])) for d in dummies]
        differences = [a - b for a, b in pairs if a is not None and b is not None]
        return float(np.var(differences, ddof=1)) if len(differences) > 1 else 0.0

    return _summed(known, values, removed, spread)


def best(scores: Scores) -> int:
    """The value with the highest score, the first of equals."""
    return max(scores, key=lambda value: scores[value])


def _base(known: Mapping[int, int], out: int, secret: int, value: int) -> list[Condition]:
    return [*(Condition(c, v) for c, v in known.items() if c != out), Condition(secret, value)]


def _summed(known: Mapping[int, int], values: Sequence[int], removed: Sequence[int] | None,
            of: Callable[[int, int], float]) -> Scores:  # fmt: skip
    """``of(value, column)`` summed over the columns that are left out."""
    if not known:
        raise BadInput("nothing is known of the victim; give the columns and values that only they have together")
    out = [next(iter(known))] if removed is None else removed
    if strange := [c for c in out if c not in known]:
        raise BadInput(f"column {strange[0]} cannot be left out: known are {', '.join(map(str, known))}")
    return {v: sum(of(v, c) for c in out) for v in values}
