"""SalUn: half of the weights, the most salient ones, forget memorised labels as well as all of them do."""

from __future__ import annotations

from typing import Any

import torch

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import ROWS, memorised
from oblivio.claims.relabel import SETTINGS
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.where import Selection, Where
from oblivio.terms import fit
from oblivio.where import saliency


class scattered(Where):
    """A random ``keep`` share of all entries."""

    def __init__(self, keep: float) -> None:
        self.keep = keep

    def select(self, problem: Problem) -> Selection:
        g = torch.Generator().manual_seed(mix(problem.seed, "scattered"))
        return {name: torch.rand(w.shape, generator=g) < self.keep for name, w in problem.weights("model.*").items()}


def at_random(keep: float, **settings: Any) -> Stage:
    """Random relabelling on a random mask."""
    plan: Stage = methods.relabel(**settings)
    return plan.but(where=scattered(keep))


def strays(before: Problem, after: Problem) -> int:
    """Entries outside the salient half that moved."""
    mask = saliency(fit("forget"), 0.5)
    mask.prepare(before)
    old, new = before.weights("model.*"), after.weights("model.*")
    return sum(int((old[n] != new[n])[~m.bool()].sum()) for n, m in mask.select(before).items() if m is not None)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on the memorised wrong labels before and after, under three masks."""
    case = memorised(seed)
    done = case.after(method(keep=0.5, **SETTINGS))
    return {
        "before": case.start.score("forget"),
        "retrained": case.retrained.score("forget"),
        "salun": done.score("forget"),
        "salun_retain": done.score("retain"),
        "relabel": case.after(methods.relabel(**SETTINGS)).score("forget"),
        "random_mask": case.after(at_random(0.5, **SETTINGS)).score("forget"),
        "strays": strays(case.start, done),
    }


CLAIM = Claim(
    says="Random relabelling on the most salient half of the weights brings the accuracy on memorised wrong labels as "
    "low as on all weights, and lower than on a random half.",
    trained=ROWS,
    method=methods.salun,
    controls={"a random mask of the same size": at_random},
    measure=measure,
    holds=("abs(salun - relabel) <= 0.05", "salun <= random_mask - 0.08", "salun_retain >= 0.99"),
    always=("strays == 0",),
)
