"""Sharpness-aware minimisation of one term: the gradient is taken where the term is locally worst."""

from __future__ import annotations

import torch

from oblivio.core.grads import Grads, norm
from oblivio.core.step import Step
from oblivio.core.term import Rule, Term, rule


@rule
class sam(Rule):
    """grad L(theta + rho g / |g|) with g = grad L(theta), over all moving weights (Foret et al., 2021).

    Passes a step: two of its term.
    """

    term: Term
    rho: float = 0.05

    def grad(self, step: Step, graph: bool = False) -> Grads:
        g = self.term.grad(step)
        scale = self.rho / (norm(g) + 1e-12)
        with torch.no_grad():
            ahead = {k: w + scale * g[k] if k in g else w for k, w in step.weights.items()}
        return self.term.grad(step.at(ahead), graph)
