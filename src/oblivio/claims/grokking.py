"""Modular addition with wrong labels: the small quadratic network that learns it, and which of its neurons do what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adamw
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import generator
from oblivio.core.step import Step
from oblivio.core.term import On, term


class Quadratic(nn.Module):
    """``W2 (W1 x)^2`` without biases, x the one-hot pair of two residues; takes the residues, shape (n, 2)."""

    def __init__(self, p: int, width: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(3, p, width, generator=generator(seed, "quadratic")) * 0.5 / (2 * width) ** (1 / 3)
        self.left, self.right, self.out = (nn.Parameter(w.clone()) for w in drawn)  # a neuron is a column of the three

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the sums, shape (n, p)."""
        left, right = x.long().unbind(1)
        hidden = (self.left.index_select(0, left) + self.right.index_select(0, right)).square()
        return hidden @ self.out.T


@dataclass(frozen=True)
class Setting:
    """Residues modulo ``p``, ``width`` neurons, ``frac`` of all pairs to train on, ``xi`` of these with random labels.

    ``wd`` is AdamW's, ``steps`` are of the whole training set.
    """

    p: int = 59
    width: int = 400
    frac: float = 0.5
    xi: float = 0.35
    wd: float = 5.0
    steps: int = 800
    lr: float = 0.01


def pairs(setting: Setting, seed: int) -> dict[str, dict[str, Tensor]]:
    """Sources ``train``, ``test``, ``wrong`` and ``true``: columns ``x`` of shape (n, 2) and ``y`` of shape (n,).

    ``wrong`` holds the training rows whose random label is not the sum, with that label, ``true`` the same rows with
    the sum. Raises BadInput where no row has a wrong label.
    """
    p, g = setting.p, generator(seed, "pairs")
    x = torch.cartesian_prod(torch.arange(p), torch.arange(p))[torch.randperm(p * p, generator=g)]
    n = round(setting.frac * p * p)
    true = x.sum(1) % p
    given = true.clone()
    bad = round(setting.xi * n)
    given[:bad] = torch.randint(p, (bad,), generator=g)
    wrong = (given != true).nonzero().flatten()
    if not len(wrong):
        raise BadInput(f"xi = {setting.xi:g}: no label of {n} pairs is wrong; choose a larger share")
    parts = {"train": (torch.arange(n), given), "test": (torch.arange(n, p * p), true),
             "wrong": (wrong, given), "true": (wrong, true)}  # fmt: skip
    return {name: {"x": x[at], "y": labels[at]} for name, (at, labels) in parts.items()}


@term
def squared(step: Step, on: On) -> Tensor:
    """Mean squared distance of the scores from the one-hot label."""
    out = step.out(on)
    return (out - F.one_hot(step.batch(on)["y"], out.shape[1])).square().mean(1)


@lru_cache(maxsize=32)
def trained(setting: Setting, seed: int) -> Problem:
    """The network after training on all training pairs at once; not to be changed."""
    opt = adamw(setting.lr, (0.9, 0.98), setting.wd)
    plan = Descent(squared("train"), opt=opt, steps=setting.steps, batch=None)
    model = Quadratic(setting.p, setting.width, seed)
    sources: dict[str, Any] = dict(pairs(setting, seed))
    return Run(plan, Problem(model, task="classification", seed=seed, **sources)).go()


def participation(values: Tensor) -> Tensor:
    """Inverse participation ratio of columns in frequency: 1 for a single one, about 4 / p for noise.

    Args:
        values: of shape (p, neurons).

    Returns:
        Sum of q^4 over the magnitudes q of the real Fourier transform, of unit length; shape (neurons,).
    """
    power = torch.fft.rfft(values.double(), dim=0).abs().square()
    return (power / power.sum(0, keepdim=True).clamp_min(1e-300)).square().sum(0)


def periodicity(model: nn.Module) -> Tensor:
    """The mean ratio of each neuron's three weight vectors, shape (neurons,): low where it stores rows."""
    with torch.no_grad():
        return torch.stack([participation(w) for w in model.parameters()]).mean(0)


def without(problem: Problem, neurons: Tensor) -> Problem:
    """A copy in which these neurons (places) are zero."""
    other = problem.copy()
    with torch.no_grad():
        for weight in other.model.parameters():
            weight[:, neurons] = 0
    return other
