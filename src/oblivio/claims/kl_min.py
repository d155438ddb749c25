"""KL minimisation: it keeps retained answers better than ascent, not those it is not given. People who do not exist."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.grad_ascent_text import STEPS, settings
from oblivio.claims.language import Mini
from oblivio.claims.problems import nothing, unstopped
from oblivio.core.plan import Stage

PARTS = ("forget", "retain", "world")
GIVEN = settings(STEPS, alpha=1.0)


def ascent(alpha: float, **given: Any) -> Stage:
    """Gradient ascent in its place."""
    plan: Stage = methods.grad_ascent(**given)
    return plan


def measure(method: Method, seed: int) -> Figures:
    """Probabilities of forgotten, retained and unrelated answers after the method, and after ascent alone."""
    mini = language.mini(seed)
    done = language.after(unstopped(method(**GIVEN)), mini.problem())
    return {**others(seed), **probabilities(mini, "kl_min", done.model)}


@functools.cache
def others(seed: int) -> Figures:
    """The same of the model before, of a retrained one, and after ascent."""
    mini = language.mini(seed)
    climbed = language.after(unstopped(ascent(**GIVEN)), mini.problem())
    models = {"before": mini.model, "retrained": mini.retrained(), "ascent": climbed.model}
    return {what: value for name, model in models.items() for what, value in probabilities(mini, name, model).items()}


def probabilities(mini: Mini, name: str, model: nn.Module) -> Figures:
    """Mean probabilities of the answers of all parts, under the name of a model."""
    return {f"{name}_{part}": language.probability(model, mini.tokens(part)) for part in PARTS}


CLAIM = Claim(
    says="After 60 steps forgotten answers are improbable and retained ones are not, where ascent at the same steps "
    "loses both. A retrained model has hardly lost anything.",
    trained=language.TRAINED,
    method=methods.kl_min,
    controls={"gradient ascent": ascent, "the method as a no-op": nothing},
    measure=measure,
    holds=("kl_min_forget < 0.2", "kl_min_retain > 0.7", "kl_min_retain > ascent_retain", "retrained_retain > 0.95"),
)
