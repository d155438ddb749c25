"""NegMerge: what all of 36 fine-tunings agree on is worth more than the median one of them, and than their mean."""

from __future__ import annotations

from functools import cache
from statistics import median
from typing import Any

import torch

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import CLASS, accuracy, class_three, first, nothing, unstopped
from oblivio.methods.unlearning.arithmetic.negmerge import Votes, fine_tuning, subtract

RUNS, FLOOR, MOST = 36, 0.95, 4.0
SETTINGS: dict[str, Any] = {"lr": 1e-3, "epochs": 20.0, "batch": 64, "noise": 0.2}


@cache
def singles(seed: int, runs: int) -> tuple[list[float], float]:
    """Of each single task vector: accuracy on the class once it is taken back as far as the floor allows.

    And of all weights the share on whose direction all the vectors agree.
    """
    case, every, left = class_three(seed), Votes(), []
    start = case.start.weights("model.*")
    for k in range(runs):
        tuned, votes = case.after(fine_tuning(k, **SETTINGS)).weights("model.*"), Votes()
        vector = {n: (w - start[n]).detach() for n, w in tuned.items()}
        every.add(vector)
        votes.add(vector)
        left.append(case.after(subtract(votes, False, FLOOR, MOST)).score("forget"))
    unanimous = torch.cat([s.flatten() != 0 for s in every.state["sign"].values()])
    return left, float(unanimous.float().mean())


def measured(method: Method, seed: int, runs: int) -> Figures:
    """Accuracy on training rows of the class and of the others, with ``runs`` fine-tunings."""
    case = class_three(seed)
    done, mean = (
        case.after(method(merge=merge, runs=runs, floor=FLOOR, most=MOST, **SETTINGS))
        for merge in ("consensus", "mean")
    )
    one, unanimous = singles(seed, runs)
    ascent = unstopped(methods.grad_ascent(lr=1e-3, epochs=60))
    climbed = first(case.path(ascent, forget=accuracy("forget"), retain=accuracy("retain")), "forget", 0.05)
    return {
        "before": case.start.score("forget"),
        "before_others": case.start.score("retain"),
        "before_test": case.start.score("kept"),
        "retrained": case.retrained.score("forget"),
        "retrained_test": case.retrained.score("kept"),
        "negmerge": done.score("forget"),
        "negmerge_others": done.score("retain"),
        "negmerge_test": done.score("kept"),
        "mean": mean.score("forget"),
        "mean_others": mean.score("retain"),
        "mean_test": mean.score("kept"),
        "median_single": median(one),
        "best_single": min(one),
        "worst_single": max(one),
        "unanimous": unanimous,
        "ascent": climbed["forget"],
        "ascent_others": climbed["retain"],
    }


def measure(method: Method, seed: int) -> Figures:
    """With the card's 36."""
    return measured(method, seed, RUNS)


def fast(method: Method, seed: int) -> Figures:
    """With 6, the default."""
    return measured(method, seed, 6)


CLAIM = Claim(
    says="Where 36 fine-tunings on the class agree in sign, their mean change is subtracted as far as the others keep "
    "0.95 of their accuracy: no more of the class is left than after the median of the 36 taken alone, and the others "
    "are no worse than after the plain mean.",
    trained=CLASS,
    method=methods.negmerge,
    controls={"the method as a no-op": nothing},
    measure=measure,
    fast=fast,
    tolerance=0.05,
    holds=(
        "negmerge <= median_single",
        "negmerge_others >= mean_others",
        "negmerge_others >= 0.95 * before_others",
        "unanimous >= 0.05",
        "unanimous <= 0.6",
    ),
)
