"""Stochastic teacher: one epoch erases a class and much else, one epoch of rebuilding brings the rest back."""

from __future__ import annotations

import copy
from typing import Any

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import CLASS, class_three, nothing, unstopped
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.part import walk
from oblivio.core.plan import Plan, Stage
from oblivio.terms import distill, fit


def erased(plan: Stage) -> Stage:
    """The plan up to the end of its first descent: the erasing."""
    stages = plan.stages if isinstance(plan, Plan) else [plan]
    ends = [i + 1 for i, stage in enumerate(stages) if isinstance(stage, Descent)]
    return Plan(stages[: ends[0]] if ends else [])


def rebuilding(**settings: Any) -> Stage:
    """The second phase without the first."""
    return Descent(distill("retain"), opt=adam(1e-3), epochs=1)


def forgetful(**settings: Any) -> Stage:
    """The two phases, each by an Adam of its own."""
    plan: Stage = copy.deepcopy(methods.stochastic_teacher(**settings))
    last = [part for _, part in walk(plan) if isinstance(part, Descent)][-1]
    last.opt = adam(last.opt.lr)
    return plan


def ascent() -> Stage:
    """One epoch of gradient ascent by the same optimiser."""
    return Descent(-fit("forget"), opt=adam(1e-3), epochs=1, batch=16)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on training rows of the class that goes and on test rows of the others, after each phase."""
    case = class_three(seed)
    plan = method(lr=1e-3, erase_batch=16)
    first, done = case.after(erased(plan)), case.after(plan)
    long = case.after(method(lr=1e-3, erase_batch=16, rebuild_epochs=10))
    bad = case.after(unstopped(methods.bad_teacher()))
    climbed = case.after(ascent())
    return {
        "before": case.start.score("forget"),
        "before_others": case.start.score("kept"),
        "retrained": case.retrained.score("forget"),
        "retrained_others": case.retrained.score("kept"),
        "erased": first.score("forget"),
        "erased_others": first.score("kept"),
        "rebuilt": done.score("forget"),
        "rebuilt_others": done.score("kept"),
        "long": long.score("forget"),
        "long_others": long.score("kept"),
        "bad_teacher": bad.score("forget"),
        "bad_teacher_others": bad.score("kept"),
        "ascent": climbed.score("forget"),
        "ascent_others": climbed.score("kept"),
    }


CLAIM = Claim(
    says="One epoch of imitating a random network takes the class away and harms the others; one epoch of imitating "
    "the start on the rest, by the same optimiser, brings those back and not the class. Also shown: ten epochs of "
    "rebuilding (long), bad_teacher at its defaults, which teaches both at once, and an epoch of gradient ascent.",
    trained=CLASS,
    method=methods.stochastic_teacher,
    controls={
        "rebuilding alone": rebuilding,
        "each phase by an optimiser of its own": forgetful,
        "the method as a no-op": nothing,
    },
    measure=measure,
    tolerance=0.02,
    holds=(
        "erased <= 0.15",
        "rebuilt <= 0.05",
        "abs(rebuilt_others - before_others) <= 0.04",
        "rebuilt_others >= erased_others + 0.05",
    ),
)
