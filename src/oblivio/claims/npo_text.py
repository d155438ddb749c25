"""NPO on texts: an ascent that fades keeps the model where plain ascent destroys it. People who do not exist."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from oblivio import methods, terms
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.grad_ascent_text import settings
from oblivio.claims.language import Mini
from oblivio.claims.problems import unstopped
from oblivio.core.grads import Grads
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.how import clip

STEPS, EARLY = 160, 120
GIVEN = settings(STEPS)


def ascent(beta: float, retain: float, **given: Any) -> Stage:
    """Gradient ascent in its place; with a retain term gradient difference."""
    plan: Stage = methods.grad_diff(gamma=1.0, alpha=retain, **given) if retain else methods.grad_ascent(**given)
    return plan


def limited(plan: Stage) -> Stage:
    """To the end, and clipped, as everything on the testbed."""
    return unstopped(plan).but(how=clip(1.0))


@term
def likelihood(step: Step, on: On) -> Tensor:
    """The log-likelihood of a whole answer: what ascent lowers where sums over tokens are meant."""
    return step.task.score(step.out(on), step.batch(on))


def likeness(mini: Mini) -> float:
    """The cosine between the gradients of NPO with a vanishing beta and of ascent, 15 steps from the start."""
    done = language.after(limited(methods.npo(beta=1e-4, retain=0.0, **settings(15))), mini.problem())
    one, other = done.gradient(terms.npo("forget", beta=1e-4)), done.gradient(likelihood("forget"))
    return float(cosine_similarity(_flat(one), _flat(other), dim=0))


def _flat(grads: Grads) -> torch.Tensor:
    return torch.cat([grads[name].flatten() for name in sorted(grads)])


def measure(method: Method, seed: int) -> Figures:
    """Probabilities without and with a retain term, beside ascent and gradient difference."""
    mini = language.mini(seed)
    forget, retain = (mini.tokens(name) for name in ("forget", "retain"))
    found: Figures = {}
    for beta in (1, 3):
        plan = limited(method(beta=float(beta), retain=0.0, **GIVEN))
        course = language.path(plan, mini.problem(), every=STEPS - EARLY, retain=language.of(retain))
        late, early = course[STEPS]["retain"], course[EARLY]["retain"]
        found |= {f"beta_{beta}_retain": late, f"beta_{beta}_drift": abs(late - early)}
    held = language.after(limited(method(beta=1.0, retain=1.0, **GIVEN)), mini.problem())
    return {
        **others(seed),
        **found,
        "held": language.probability(held, forget),
        "held_retain": language.probability(held, retain),
    }


@functools.cache
def others(seed: int) -> Figures:
    """Before, of a retrained model, after ascent and gradient difference; and how alike the gradients are."""
    mini = language.mini(seed)
    forget, retain = (mini.tokens(name) for name in ("forget", "retain"))
    gone, differed = (language.after(limited(ascent(1.0, r, **GIVEN)), mini.problem()) for r in (0.0, 1.0))
    return {
        "before": language.probability(mini.model, forget),
        "retrained": language.probability(mini.retrained(), forget),
        "retrained_retain": language.probability(mini.retrained(), retain),
        "ascent_retain": language.probability(gone, retain),
        "grad_diff_retain": language.probability(differed, retain),
        "cosine": likeness(mini),
    }


CLAIM = Claim(
    says="Without a retain term the probability of retained answers levels off (drift: from step 120 to 160), higher "
    "with a larger beta, where ascent at the same rate takes it to nothing. With the retain term (held) it stays, "
    "where gradient difference loses it. With beta to 0 the gradient is that of ascent.",
    trained=language.TRAINED,
    method=methods.npo,
    controls={"gradient ascent and gradient difference": ascent},
    measure=measure,
    holds=(
        "ascent_retain < 0.01",
        "beta_1_retain > 0.1",
        "beta_3_retain > 0.25",
        "beta_1_drift < 0.02",
        "beta_3_drift < 0.02",
        "held_retain > 0.97",
        "held_retain > grad_diff_retain",
        "held < 0.4",
        "cosine > 0.999",
    ),
    changed=(
        Changed(
            "steps, and where the plateau is looked for",
            "120, from step 80",
            "160, from step 120",
            "chosen on seeds 100 and 101: from step 80 the drift of beta 1 is 0.033 and 0.001 there, from 120 on 0.008 "
            "and below 0.001; with 120 steps it had been 0.024 on seeds 0 to 2",
        ),
    ),
)
