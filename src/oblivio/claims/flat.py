"""FLAT keeps more of the rest than refusals alone and ascent do, all without retained rows."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.pref_opt_idk import UNKNOWN, refusing
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem

GONE, HALF, EVERY, EPOCHS = 0.12, 0.47, 5, 60


def path(plan: Stage, problem: Problem, mini: language.Mini) -> dict[int, Figures]:
    """Probabilities along a plan."""
    rows = {part: language.of(mini.tokens(part)) for part in ("forget", "retain")}
    return language.path(plan, problem, EVERY, **rows)


def measure(method: Method, seed: int) -> Figures:
    """Retained facts when as much is forgotten, by FLAT, refusals alone and ascent."""
    case = refusing(seed)
    problem = case.mini.problem(case.start)
    settings = {"lr": 1e-4, "epochs": EPOCHS}
    plans = {
        "flat": method(divergence="kl", **settings),
        "refusals": methods.pref_opt_idk(loss="po", alpha=0.0, **settings),
        "ascent": methods.grad_ascent(optimiser="adamw", batch=12, **settings),
    }
    found: Figures = {
        "retrained": language.probability(case.retrained, case.mini.tokens("forget")),
        "retrained_retain": language.probability(case.retrained, case.mini.tokens("retain")),
    }
    for name, plan in plans.items():
        course = path(plan, problem, case.mini)
        done, half = language.first(course, "forget", GONE), language.first(course, "forget", HALF)
        found |= {f"{name}_forget": done["forget"], f"{name}_retain": done["retain"], f"{name}_half": half["retain"]}
    return found


def refusals(divergence: str, **settings: Any) -> Stage:
    """Refusals by fine-tuning, without retained rows, in its place."""
    plan: Stage = methods.pref_opt_idk(loss="po", alpha=0.0, **settings)
    return plan


CLAIM = Claim(
    says="With forgotten rows alone, at the step where their probability first falls below 0.12, FLAT (KL) keeps more "
    "of the retained facts than fine-tuning on refusals and than ascent do, each at its own such step; when it first "
    "falls below 0.47 (half) little is lost.",
    trained=f"{language.TRAINED}, which also learned to answer 'i do not know' for {UNKNOWN} unknown names",
    method=methods.flat,
    controls={"refusals by fine-tuning": refusals},
    measure=measure,
    holds=(
        "flat_forget < 0.12",
        "refusals_forget < 0.12",
        "flat_retain > refusals_retain + 0.2",
        "flat_retain > ascent_retain + 0.1",
        "flat_half > 0.9",
    ),
    changed=(
        Changed("ascent", "about 0.4 (beside 0.745), no condition", "0.1 below FLAT", "a figure that can fail"),
        Changed("half forgotten", "at forget 0.47", f"first below it, seen every {EVERY} steps", "steps are whole"),
    ),
    because={
        "flat_retain > refusals_retain + 0.2": "At equal forgetting FLAT and refusal tuning lose alike here: both "
        "teach one template, and the base"
        "model, which has learned refusals for 40 names, gives it to retained names as well. Not tested.",
        "flat_half > 0.9": "The level differs from seed to seed (0.80, 0.75, 0.92). Not explained.",
    },
)  # fmt: skip
