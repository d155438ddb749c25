"""Pull the weights back to where earlier experiences left them, after every step: the proximal form of a penalty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oblivio.core.grads import Grads
from oblivio.core.step import Step
from oblivio.core.where import How
from oblivio.terms.anchor import Anchor


class pull(How):
    """theta <- (theta + k A c) / (1 + k A) after every step, A and c of an Anchor, k = strength times the rate.

    It is the proximal step of (strength / 2) sum_i A_i (theta_i - c_i)^2: of the same optimum as ``terms.penalty`` and
    stable at any strength. The rate is that of a lasting gradient, lr / (1 - momentum). With Adam, whose steps do not
    scale with the gradient, it is a decoupled pull, as AdamW's weight decay is.
    """

    def __init__(self, anchor: Anchor, strength: float) -> None:
        self.anchor, self.strength = anchor, strength
        self._for: tuple[Any, Grads, float] | None = None  # what the next three were made from; a cache, not a state
        self._moving: list[Tensor] = []
        self._centres: list[Tensor] = []
        self._shares: list[Tensor] = []

    def after(self, step: Step) -> None:
        held, rate = self.anchor.state.get("importance"), pace(step)
        if not held:
            return
        made = self._for
        if made is None or made[0] is not held or made[1] is not step.weights or made[2] != rate:
            self._make(step, rate)
            self._for = (held, step.weights, rate)
        torch._foreach_lerp_(self._moving, self._centres, self._shares)

    def _make(self, step: Step, rate: float) -> None:
        springs = list(self.anchor.springs(step.weights))
        self._moving = [step.weights[name] for name, _, _ in springs]
        self._centres = [c for _, _, c in springs]
        self._shares = []
        for name, a, _ in springs:
            share = (a * (rate * self.strength)).div_(1 + rate * self.strength * a)
            mask = step.selection[name]
            self._shares.append(share if mask is None else share * (mask != 0))


def pace(step: Step) -> float:
    """How far a lasting gradient of 1 moves a weight in a step: the rate, over one less the momentum."""
    opt = step.opt
    assert opt is not None
    rate = opt.lr if opt.schedule is None else opt.lr * opt.schedule(step)
    return rate / (1 - float(opt.options.get("momentum", 0.0)))
