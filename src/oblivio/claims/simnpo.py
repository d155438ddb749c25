"""SimNPO: as a retrained model, at no cost to what is retained or never mentioned. People who do not exist."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from oblivio import methods
from oblivio.audits.language.membership import mia_auc, min_k
from oblivio.audits.language.responses import respond
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.grad_ascent_text import settings
from oblivio.claims.language import Mini
from oblivio.claims.problems import nothing, unstopped
from oblivio.core.plan import Stage

STEPS = 200
PARTS = ("forget", "retain", "world")
BETA, FORGET = 1.75, 0.1375


def ascent(beta: float, forget: float, **given: Any) -> Stage:
    """Gradient difference with the same weight of the forget term."""
    plan: Stage = methods.grad_diff(gamma=forget, **given)
    return plan


def membership(mini: Mini, model: nn.Module) -> float:
    """The AUC by which Min-K% tells facts that were never learned from those that were to be forgotten."""
    end = mini.tokenizer.eos_token_id
    forget, holdout = (min_k(respond(model, mini.tokens(part), eos=end)) for part in ("forget", "holdout"))
    return mia_auc(forget, holdout)


def measure(method: Method, seed: int) -> Figures:
    """Probabilities and the attack: after SimNPO, NPO and ascent at the same steps, and of a retrained model."""
    mini = language.mini(seed)
    done = language.after(unstopped(method(beta=BETA, forget=FORGET, **settings(STEPS))), mini.problem())
    found = {**others(seed), **figures(mini, "simnpo", done.model)}
    return {
        **found,
        "apart": abs(found["simnpo_forget"] - found["retrained_forget"]),
        "margin": max(found["simnpo_world"] - found["npo_world"], found["npo_forget"] - found["simnpo_forget"]),
    }


@functools.cache
def others(seed: int) -> Figures:
    """The same without what depends on the method."""
    mini = language.mini(seed)
    plans = {"npo": methods.npo(beta=1.0, **settings(STEPS)), "ascent": methods.grad_ascent(**settings(STEPS))}
    models = {"before": mini.model, "retrained": mini.retrained()}
    models |= {name: language.after(unstopped(plan), mini.problem()).model for name, plan in plans.items()}
    return {what: value for name, model in models.items() for what, value in figures(mini, name, model).items()}


def figures(mini: Mini, name: str, model: nn.Module) -> Figures:
    """Mean probabilities of the answers of all parts and the attack, under the name of a model."""
    found = {f"{name}_{part}": language.probability(model, mini.tokens(part)) for part in PARTS}
    return {**found, f"{name}_auc": membership(mini, model)}


CLAIM = Claim(
    says="After 200 steps forgotten answers are as probable as for a retrained model (apart: by how much they differ), "
    "an attack does not tell them from answers that were never learned, and answers about people who are retained or "
    "not mentioned stay. NPO at the same steps has harmed the latter more, or forgotten less (margin: the larger of "
    "the two advantages), and ascent has destroyed the model.",
    trained=language.TRAINED,
    method=methods.simnpo,
    controls={"gradient difference": ascent, "the method as a no-op": nothing},
    measure=measure,
    holds=(
        "apart < 0.1",
        "simnpo_retain > 0.98",
        "simnpo_world > 0.95",
        "simnpo_auc >= 0.35",
        "simnpo_auc <= 0.7",
        "margin > 0",
        "ascent_retain < 0.05",
    ),
    changed=(
        Changed(
            "beta, and the weight of the forget term",
            "4.5 and 0.125; 2.5 and 0.1375 for the smaller of the published forget sets",
            "1.75 and 0.1375",
            "chosen on seeds 100 and 101, where the attack is at 0.41 and 0.56 with them; with 4.5 at 0.70 and 0.85, "
            "which more steps (to 600) do not lower, with 2.5 at 0.55 and 0.71; with 4.5 it had been 0.76 on seeds 0 "
            "to 2. The larger beta is, the sooner the force fades. Of seven from 1 to 4.5 this alone meets every "
            "condition on both seeds after 200 steps",
        ),
    ),
)
