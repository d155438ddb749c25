"""What claims on ascents with a term for what stays share: figures beside ascent alone and a retrained model."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Figures
from oblivio.claims.grad_ascent_text import settings
from oblivio.claims.language import Mini
from oblivio.claims.problems import unstopped
from oblivio.core.plan import Stage

PARTS = ("forget", "retain", "world")


def ascent(alpha: float, gamma: float = 1.0, **given: Any) -> Stage:
    """The same without the term for what stays: the baseline."""
    plan: Stage = methods.grad_ascent(**given)
    return plan


def beside(name: str, plan: Stage, seed: int, steps: int) -> Figures:
    """Mean probabilities of forgotten, retained and unrelated answers after a plan, and beside it."""
    mini = language.mini(seed)
    done = language.after(unstopped(plan), mini.problem())
    return {**_others(seed, steps), **_probabilities(mini, name, done.model)}


@functools.cache
def _others(seed: int, steps: int) -> Figures:
    """The same of the model before, of a retrained one, and after ascent alone for as many steps."""
    mini = language.mini(seed)
    climbed = language.after(unstopped(ascent(1.0, **settings(steps))), mini.problem())
    models = {"before": mini.model, "retrained": mini.retrained(), "ascent": climbed.model}
    return {what: value for name, model in models.items() for what, value in _probabilities(mini, name, model).items()}


def _probabilities(mini: Mini, name: str, model: nn.Module) -> Figures:
    return {f"{name}_{part}": language.probability(model, mini.tokens(part)) for part in PARTS}
