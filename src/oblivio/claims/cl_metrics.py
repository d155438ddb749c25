"""Metrics of continual learning: what they must say of runs that were measured, and of each other."""

from __future__ import annotations

import numpy as np

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.continual import SPLIT, course, split_digits
from oblivio.claims.lines import SETTINGS
from oblivio.data.history import metrics

WORKED = ([[0.9, 0.1, 0.1], [0.6, 0.8, 0.2], [0.7, 0.5, 0.9]], [0.1, 0.1, 0.1])  # R and b of the card


def over_all(R: metrics.Table) -> float:
    """Backward transfer divided by the number of tasks, as some code has it."""
    table = np.asarray(R)
    return float((table[-1] - table.diagonal()).mean())


def measure(method: Method, seed: int) -> Figures:
    """How far the figures of two runs are from the identities between them, and those of the worked example."""
    R, b = WORKED
    found = {
        "acc": metrics.acc(R),
        "bwt": method(R),
        "fm": metrics.fm(R),
        "fwt": metrics.fwt(R, b),
        "la": metrics.la(R),
    }
    apart, least = 0.0, 1.0
    for plan in (methods.naive(**SETTINGS), methods.er(buffer=100, replay=10, **SETTINGS)):
        table = course(plan, split_digits("task", seed), seed).history.matrix
        transfer = (len(table) - 1) / len(table) * method(table)
        apart = max(apart, abs(metrics.acc(table) - metrics.la(table) - transfer))
        least = min(least, metrics.fm(table) + method(table))
    return {**found, "apart": apart, "forgetting_less_transfer": least}


CLAIM = Claim(
    says="ACC = LA + (T-1)/T BWT on every run, forgetting is never below -BWT, and a worked example gives ACC 0.7, BWT "
    "-0.25, FM 0.25, FWT 0.05 and LA 0.8667. Backward transfer over T instead of T-1 tasks breaks the identity.",
    trained=f"{SPLIT}; naive training and replay of 100 rows, the task known",
    method=metrics.bwt,
    controls={"backward transfer divided by T": over_all},
    measure=measure,
    always=(
        "abs(acc - 0.7) < 0.000001",
        "abs(bwt + 0.25) < 0.000001",
        "abs(fm - 0.25) < 0.000001",
        "abs(fwt - 0.05) < 0.000001",
        "abs(la - 0.8666666) < 0.000001",
        "apart < 0.000001",
        "forgetting_less_transfer >= -0.000001",
    ),
)
