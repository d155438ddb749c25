"""Penalties on the weights alone: their size, their distance from where they began, their spectra.

All are sums over the entries of the weights that may move, never means; ``lam`` counts against such a sum.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from oblivio.core.grads import Grads
from oblivio.core.problem import Problem, rng
from oblivio.core.step import Step
from oblivio.core.term import Term

BIAS = re.compile(r"bias(es\.\d+)?$")  # also those of a head that has grown


class l2(Term):
    """R = sum w^2: towards zero."""

    def __call__(self, step: Step) -> Tensor:
        return torch.stack([w.square().sum() for w in step.weights.values()]).sum() * step.share


class _FromStart(Term):
    """A penalty against the model's weights before its first step; where one has another shape now, against that."""

    def kept(self, weight: Tensor) -> Tensor:
        """What of a weight at the start is compared."""
        return weight.detach().clone()

    def prepare(self, problem: Problem) -> None:
        for name, weight in problem.weights("model.*").items():
            start = self.state.get(name)
            if start is None or start.numel() != weight.numel():
                self.state[name] = self.kept(weight)

    def distance(self, weight: Tensor, start: Tensor) -> Tensor:
        """Of one weight; shape ()."""
        return (weight - start).square().sum()

    def __call__(self, step: Step) -> Tensor:
        known = [(w, self.state[n]) for n, w in step.weights.items() if n in self.state]
        total = sum((self.distance(w, start) for w, start in known), start=torch.zeros((), device=step.device))
        return total * step.share


class l2_init(_FromStart):
    """R = sum (w - w_start)^2: each weight towards where it began (Kumar et al., 2023)."""


class wasserstein(_FromStart):
    """R = sum (sort(w) - sort(w_start))^2 over each tensor: its weights towards how they were distributed at the start.

    The squared 2-Wasserstein distance of the two sets of numbers, times their count; which weight has which does not
    matter (Lewandowski et al., 2024).
    """

    def kept(self, weight: Tensor) -> Tensor:
        """Its values, sorted."""
        return weight.detach().flatten().sort().values

    def distance(self, weight: Tensor, start: Tensor) -> Tensor:
        return (weight.flatten().sort().values - start).square().sum()


class spectral(Term):
    """R = sum_l (sigma_l^k - 1)^2 + sum_l (|b_l|^k)^2 + sum (|g|^k - 1)^2: each layer as it was able to learn at first.

    sigma_l is the greatest singular value of a matrix, or of a kernel as (outputs, rest); b_l a bias; g the scales of
    normalisation layers. One step of the power iteration an update, from where the one before ended; through it there
    is no gradient.
    """

    def __init__(self, k: int = 2) -> None:
        self.k = k

    def prepare(self, problem: Problem) -> None:
        for name, weight in problem.weights("model.*").items():
            if weight.dim() > 1 and self.state.get(f"{name}/v", weight[0].new_empty(0)).numel() != weight[0].numel():
                start = torch.randn(weight[0].numel(), generator=rng(problem, "spectral", name), device=weight.device)
                self.state[f"{name}/v"] = _unit(start)

    def before(self, step: Step) -> None:
        with torch.no_grad():
            for name, matrix in self._matrices(step.weights).items():
                u = _unit(matrix @ self.state[f"{name}/v"])
                self.state[f"{name}/u"], self.state[f"{name}/v"] = u, _unit(u @ matrix)

    def _matrices(self, weights: Grads) -> Grads:
        return {n: w.flatten(1) for n, w in weights.items() if f"{n}/v" in self.state}

    def __call__(self, step: Step) -> Tensor:
        matrices = self._matrices(step.weights)
        ends = [self.state[f"{n}/u"] @ (w @ self.state[f"{n}/v"]) for n, w in matrices.items()]
        vectors = {n: w.flatten() for n, w in step.weights.items() if n not in matrices}
        biases = [w @ w for n, w in vectors.items() if BIAS.search(n)]
        sizes = [sigma.view(1) for sigma in ends] + [w.abs() for n, w in vectors.items() if not BIAS.search(n)]
        values = [(torch.cat(sizes) ** self.k - 1).square().sum()] if sizes else []
        values += [(torch.stack(biases) ** self.k).sum()] if biases else []
        return torch.stack(values).sum() * step.share


def _unit(v: Tensor) -> Tensor:
    return v / v.norm().clamp_min(1e-12)
