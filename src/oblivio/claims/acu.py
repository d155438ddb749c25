"""ACU: closed-form removal gives the head that ridge regression gives without the rows, in a fraction of its time."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import digits
from oblivio.core.errors import BadInput
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.learners._head import Head
from oblivio.learners._rows import Rows, read
from oblivio.learners.acu import acu
from oblivio.learners.ridge import Ridge

REQUESTS, ROWS = 20, 20
EXPAND, GAMMA = 500, 1.0
RATE = 3e-4  # stable; 1e-3 diverges


class Ascent(Ridge):
    """Forgets by gradient ascent: ten steps with rate RATE on the squared error of the rows that go."""

    def _changed(self, rows: Rows, sign: int) -> tuple[Head | None, Tensor]:
        if sign > 0:
            return super()._changed(rows, sign)
        head = self._learned()
        ((x, t),) = self._blocks(rows, head.cross.shape[1])
        for _ in range(10):
            head = replace(head, weights=head.weights + RATE * x.T @ (x @ head.weights - t) / len(x))
        return head, self._counted(rows, sign)


class Still(Ridge):
    """Says that it has forgotten, and changes nothing."""

    def _changed(self, rows: Rows, sign: int) -> tuple[Head | None, Tensor]:
        return super()._changed(rows, sign) if sign > 0 else (self._learned(), self.counts)


def instead(of: type[Ridge]) -> Method:
    """Another learner with the settings of acu."""
    return lambda expand, gamma: functools.partial(of, expand=expand, gamma=gamma, keep=False)


def measure(method: Method, seed: int) -> Figures:
    """Twenty requests of twenty rows, after each of which a head is fitted anew without them."""
    rows, test = digits().train, digits().test.batch(torch.arange(len(digits().test)))
    make = functools.partial(method(expand=EXPAND, gamma=GAMMA), nn.Flatten(), seed=seed)
    learner, order = make(), np.random.default_rng(mix(seed, "requests")).permutation(len(rows))
    learner.learn(rows)
    gap, same, spent, anew = 0.0, [], 0.0, 0.0
    for number in range(1, REQUESTS + 1):
        goes, stays = order[(number - 1) * ROWS : number * ROWS], order[number * ROWS :]
        spent += _seconds(lambda: learner.forget(rows.ids[goes], rows.take(goes)))  # noqa: B023
        fresh = functools.partial(method(expand=EXPAND, gamma=GAMMA), nn.Flatten(), seed=seed)()
        anew += _seconds(lambda: fresh.learn(rows.take(np.sort(stays))))  # noqa: B023
        gap = max(gap, _apart(learner.weights, fresh.weights))
        same.append(float((learner.predict(test["x"]).argmax(1) == fresh.predict(test["x"]).argmax(1)).double().mean()))
    return {
        "log10_gap": _log10(gap),
        "log10_gap_float32": _log10(_float32(learner, rows, order)),
        "same": min(same),
        "log10_back": _log10(_back(learner, rows, order[:ROWS])),
        "refused": _refused(learner, rows, order[:ROWS]),
        "time": spent / anew,
        "test": float((learner.predict(test["x"]).argmax(1) == test["y"]).double().mean()),
    }


def _seconds(work: Callable[[], Any]) -> float:
    since = time.perf_counter()
    work()
    return time.perf_counter() - since


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _log10(value: float) -> float:
    return math.log10(max(value, 1e-17))


def _back(learner: Ridge, rows: Source, goes: Any) -> float:
    """How far inverse and weights are from where they were after rows are learned and forgotten again."""
    before = learner._learned()
    learner.learn(rows.take(goes))
    learner.forget(rows.ids[goes], rows.take(goes))
    after = learner._learned()
    return max(_apart(before.inverse, after.inverse), _apart(before.weights, after.weights))


def _refused(learner: Ridge, rows: Source, gone: Any) -> float:
    """Whether rows that are gone cannot be forgotten again: neither by id, nor by the matrix alone."""
    x, t = next(learner._blocks(read(rows.take(gone)), learner.weights.shape[1]))
    found = 0
    for ask in (lambda: learner.forget(rows.ids[gone], rows.take(gone)), lambda: learner._learned().removed(10 * x, t)):
        try:
            ask()
        except BadInput:
            found += 1
    return float(found == 2)


def _float32(learner: Ridge, rows: Source, order: Any) -> float:
    """The gap of the same requests where the recursion runs in float32, to a head fitted in float64."""
    x, t = next(learner._blocks(read(rows.take(order)), 10))
    head = Head.empty(EXPAND, 10, GAMMA, torch.float32).resolved([(x.float(), t.float())], 1)
    for at in range(0, REQUESTS * ROWS, ROWS):
        head = head.removed(x[at : at + ROWS].float(), t[at : at + ROWS].float())
    left = slice(REQUESTS * ROWS, None)
    return _apart(head.weights, Head.empty(EXPAND, 10, GAMMA).resolved([(x[left], t[left])], 1).weights)


CLAIM = Claim(
    says="After each of 20 requests of 20 rows the head is the one that ridge regression gives on what remains, in "
    "less than the time of fitting it; learning rows and forgetting them leads back; rows not learned are refused.",
    trained="digits, 500 random features of the pixels, a ridge head; 400 of 1,200 rows go, 20 at a time",
    method=acu,
    controls={"gradient ascent on the head": instead(Ascent), "the method as a no-op": instead(Still)},
    measure=measure,
    holds=("time < 1",),
    always=("log10_gap < -8", "same == 1", "log10_back < -9", "refused == 1"),
)
