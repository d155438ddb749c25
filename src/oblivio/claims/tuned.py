"""What the claims on keeping while tuning share: the tiny language model, tuned to 36 facts that it has not learned."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from oblivio.claims import language
from oblivio.claims.claim import Changed, Figures
from oblivio.core.descent import Descent
from oblivio.core.grads import Grads
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.where import Where
from oblivio.sources.tokens import Tokens
from oblivio.terms import fit

Piece: TypeAlias = Callable[[Stage], Stage]
TRAINED = (
    "a Llama, 4 blocks of width 64, that knows 74 people who do not exist (444 facts), tuned to 36 facts of 6 others: "
    "AdamW at 5e-4, 150 steps of all 36"
)
STEPS, LR = 150, 5e-4
RATE = Changed("rate of tuning", "1e-3", "5e-4", "chosen on seed 100: plain tuning then keeps 0.76 of what was known, "
               "as in the card (0.77); at 1e-3 it keeps 0.52")  # fmt: skip


def training(loss: Any = None, where: Where | str = "model.*", *, lr: float = LR, steps: int = STEPS) -> Stage:
    """The fine-tuning."""
    return Descent(loss or fit("train"), where=where, opt=adamw(lr, wd=0.01), steps=steps, batch=None)


def host(**_: Any) -> Piece:
    """No piece on the plan: the control."""
    return lambda plan: plan


@dataclass(frozen=True)
class Tuned:
    """The model before tuning, what is to be learned, and what is known."""

    mini: language.Mini
    base: nn.Module
    new: Tokens
    old: Tokens
    lr: float = LR
    steps: int = STEPS

    @property
    def problem(self) -> Problem:
        """To learn the new facts."""
        return self.mini.problem(self.base, forget=None, retain=None, train=self.new)

    def after(self, plan: Stage) -> Problem:
        """A copy of the problem after a plan."""
        return language.after(plan, self.problem)

    @functools.cached_property
    def full(self) -> Problem:
        """After plain fine-tuning of all weights."""
        return self.after(training(lr=self.lr, steps=self.steps))

    @property
    def again(self) -> Stage:
        """A stage that has the outcome of plain fine-tuning, for pieces that only act after it."""
        return become({n: w.detach() for n, w in self.full.weights("model.*").items()})

    def figures(self, name: str, model: Any) -> Figures:
        """Probabilities of new and of old facts, as ``<name>_new`` and ``<name>_old``."""
        return {
            f"{name}_new": language.probability(model, self.new),
            f"{name}_old": language.probability(model, self.old),
        }


@edit
def become(problem: Problem, weights: Grads) -> None:
    """Take these weights."""
    for name, weight in problem.weights("model.*").items():
        weight.copy_(weights[name])


@functools.cache
def tuned(seed: int, lr: float = LR, steps: int = STEPS) -> Tuned:
    """The setting of a seed; the base is the model that never saw the six people."""
    mini = language.mini(seed)
    return Tuned(mini, mini.retrained(), mini.tokens("forget"), mini.tokens("retain+world"), lr, steps)
