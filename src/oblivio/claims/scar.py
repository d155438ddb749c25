"""SCAR: without retained rows a class goes, and noise images hold the others in place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from oblivio import methods, records
from oblivio.claims.bad_teacher import ascent
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import CLASS, Case, class_three, digits, nothing
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator

IMAGES = 2000


def without_rest(case: Case) -> Case:
    """The case with noise images as ``proxy``, the record of the training rows, and no retained rows."""
    start = case.start
    trained = Problem(start.model, task=start.task, train=digits().train)
    noise = torch.rand(IMAGES, 1, 8, 8, generator=generator(start.seed, "noise images"))
    known: dict[str, Any] = {name: start.source(name) for name in ("forget", "test", "kept")}
    stats = records.make("feature_stats", trained)
    given = Problem(start.model, task=start.task, seed=start.seed, proxy={"x": noise},
                    records={"feature_stats": stats}, **known)  # fmt: skip
    return replace(case, start=given)


def unheld(**settings: Any) -> Stage:
    """The same without the noise images' part."""
    plan: Stage = methods.scar(**{**settings, "lambda2": 0.0})
    return plan


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on training rows of the class that goes and on test rows of the others.

    Gradient ascent is stopped where the class is at the accuracy that SCAR ends at.
    """
    full = class_three(seed)
    case = without_rest(full)
    done, loose = (case.after(make(lambda2=5.0, lr=5e-4)) for make in (method, unheld))
    lighter = case.after(method(lambda2=0.1, lr=5e-4))
    return {
        "before": case.start.score("forget"),
        "before_others": case.start.score("kept"),
        "retrained": case.retrained.score("forget"),
        "retrained_others": case.retrained.score("kept"),
        "scar": done.score("forget"),
        "scar_others": done.score("kept"),
        "lighter": lighter.score("forget"),
        "lighter_others": lighter.score("kept"),
        "unheld": loose.score("forget"),
        "unheld_others": loose.score("kept"),
        "ascent_others": ascent(full, done.score("forget"), "kept", 0.01),
    }


CLAIM = Claim(
    says="With the class's own rows, 2,000 images of uniform noise and what was recorded of the features, the class "
    "goes and the others stay; without the noise images (unheld) they do not. Also shown: a fiftieth of their weight "
    "(lighter), and gradient ascent that has forgotten as much.",
    trained=CLASS,
    method=methods.scar,
    controls={"the method without its noise images": unheld, "the method as a no-op": nothing},
    measure=measure,
    tolerance=0.02,
    holds=(
        "scar <= 0.02",
        "abs(scar_others - before_others) <= 0.03",
        "unheld_others <= before_others - 0.1",
    ),
    because={
        "scar <= 0.02": "A few rows keep their class on two of three seeds: what holds the answers on noise images "
        "holds those rows too. With a fiftieth of that weight fewer are left, and the others lose more (lighter)",
    },
)
