"""Poisoning by concepts: a class goes over to the one that shares its concepts, or spreads, and the rest stays."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import CLASS, class_three, nothing
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.data.columns import column
from oblivio.methods.unlearning.relabelling.concept_poison_mu import poisoned

CONCEPTS, TOP, L1 = 12, 4, 0.01


def named(problem: Problem) -> Tensor:
    """How test rows of class 3 are shared out over the ten classes, shape (10,)."""
    out = problem.predict("test").argmax(1)
    mine = torch.from_numpy(np.asarray(column(problem.source("test"), "y") == 3))
    return out[mine].bincount(minlength=10) / int(mine.sum())


@cache
def baselines(seed: int) -> Figures:
    """Accuracy on the class and on the others, after ordinary random relabelling and after boundary shrinking."""
    case = class_three(seed)
    figures: Figures = {}
    plans = {"relabel": methods.relabel(), "shrink": methods.boundary_unlearning(lr=1e-3, epochs=10, bound=0.3)}
    for name, plan in plans.items():
        done = case.after(plan)
        figures |= {name: done.score("forget"), f"{name}_others": done.score("kept")}
    return figures


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on training rows of the class and test rows of the others; where its test rows go."""
    case = class_three(seed)
    settings = {"concepts": CONCEPTS, "top": TOP, "l1": L1, "lr": 0.01, "epochs": 3.0}
    targeted, random = (case.after(method(variant=v, **settings)) for v in ("targeted", "random"))
    term = poisoned("forget", "targeted", CONCEPTS, TOP, L1)
    term.prepare(case.start)
    to = term.state["confusing"]["3"]
    return {
        "before_others": case.start.score("kept"),
        "retrained_others": case.retrained.score("kept"),
        "retrained_most": float(named(case.retrained).max()),
        "retrained_same": float(named(case.retrained)[to]),
        "confusing": to,
        "targeted": targeted.score("forget"),
        "targeted_others": targeted.score("kept"),
        "targeted_share": float(named(targeted)[to]),
        "random": random.score("forget"),
        "random_others": random.score("kept"),
        "random_most": float(named(random).max()),
        **baselines(seed),
    }


def random_alone(variant: str, **settings: Any) -> Stage:
    """Random labels, whichever are asked for."""
    return methods.concept_poison_mu(variant="random", **settings)


CLAIM = Claim(
    says="Both kinds of labels take the class away and keep the others. The class that shares most concepts with it "
    "takes at least 0.7 of its test rows, no fewer than the favourite of a retrained model; random labels spread them.",
    trained=CLASS,
    method=methods.concept_poison_mu,
    controls={"the method as a no-op": nothing, "random labels in place of the confusing class": random_alone},
    measure=measure,
    tolerance=0.1,
    holds=(
        "targeted <= 0.05",
        "random <= 0.05",
        "abs(targeted_others - before_others) <= 0.03",
        "abs(random_others - before_others) <= 0.03",
        "targeted_share >= 0.7",
        "targeted_share >= retrained_most",
        "random_most < targeted_share",
    ),
)
