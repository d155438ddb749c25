"""Shrink and perturb: weights decay, and noise keeps what has died moving."""

from __future__ import annotations

import torch

from oblivio.core.grads import Grads
from oblivio.core.step import Step
from oblivio.core.where import How


class shrink_perturb(How):
    """Weight decay ``wd`` on the gradient, and after every step Gaussian noise of deviation ``sigma``.

    Of Ash and Adams (2020), in the form that the work on continual backprop compares with: at every step, on the
    weights that may move.
    """

    def __init__(self, wd: float = 1e-4, sigma: float = 1e-5) -> None:
        self.wd, self.sigma = wd, sigma

    def __call__(self, grads: Grads, step: Step) -> Grads:
        return {name: g + self.wd * step.weights[name].detach() for name, g in grads.items()}

    def after(self, step: Step) -> None:
        for name, weight in step.weights.items():
            mask = step.selection[name]
            noise = torch.randn(weight.shape, generator=step.rng(f"perturb/{name}"), device=weight.device)
            weight += self.sigma * (noise if mask is None else noise * mask)
