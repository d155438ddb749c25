"""The forget set that is hardest to erase, by bi-level search with sign gradients.

Challenging Forgets: Unveiling the Worst-Case Forget Sets in Machine Unlearning (Fan et al., ECCV 2024).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads
from oblivio.core.opt import sgd
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.term import On
from oblivio.core.where import How
from oblivio.data.manipulate import draw, only, replaced
from oblivio.jobs import cache
from oblivio.problems.kept import kept
from oblivio.problems.pool import Trainer
from oblivio.terms.fit import fit

HALVINGS = 60  # of the interval in which the projection's shift lies


@dataclass(frozen=True)
class Search:
    """Settings of the search; the paper's, but for ``lr_w``, which small data needs larger (0.01 there).

    Attributes:
        count: rows of the set.
        rounds: outer rounds.
        epochs: of the inner unlearning, from the original's weights in each round.
        lr: of its sign descent.
        lr_w: of the selection weights.
        gamma: weight of the penalty on their squares.
        easiest: find the set that is easiest to erase instead.
    """

    count: int
    rounds: int = 10
    epochs: int = 2
    batch: int = 64
    lr: float = 1e-3
    lr_w: float = 1.0
    gamma: float = 0.0
    easiest: bool = False


class Sign(How):
    """The sign of the gradient: a locally constant step, so that the unlearned weights do not move with the choice."""

    def __call__(self, grads: Grads, step: Step) -> Grads:
        return {name: gradient.sign() for name, gradient in grads.items()}

    def __repr__(self) -> str:
        return "sign()"


def worst_ids(trainer: Trainer, rows: Source, seed: int, search: Search) -> np.ndarray[Any, Any]:
    """The ids that the search ends with, kept beside the model that was searched.

    Args:
        trainer: of the original.
        rows: it is trained on.
        seed: of it, and of the search.
        search: settings.

    Raises:
        BadInput: a count that leaves no row, or names none.
    """
    if not 0 < search.count < len(rows):
        raise BadInput(f"a worst-case set of {search.count} of {len(rows)} rows; some must go and some stay")
    model, plain = trainer.original(rows, seed), only(rows)
    made_of = {"search": asdict(search), "seed": seed, "code": cache.code(("problems/worst.py",))}

    def make() -> dict[str, Tensor]:
        return {"weights": selected(model, plain, trainer.task, seed, search)}

    weights = kept(trainer.place(rows, seed), "worst", made_of, make)["weights"]
    order = torch.sort(weights, descending=True, stable=True).indices
    return np.asarray(rows.ids[np.sort(order[: search.count].numpy())])


def selected(model: nn.Module, rows: Source, task: str, seed: int, search: Search) -> Tensor:
    """Selection weights in [0, 1] of all rows, float64 (n,), their sum ``search.count``.

    Each round unlearns by sign descent on what is not selected, and moves the weights to rows whose loss stayed low:
    the derivative of the unlearned weights by the selection is zero, so the outer gradient is the loss itself.
    """
    weights = torch.from_numpy(np.isin(rows.ids, draw(rows, search.count, seed))).double()
    way = -1.0 if search.easiest else 1.0
    for number in range(search.rounds):
        losses = _unlearned_losses(model, rows, task, mix(seed, "worst", number), 1 - weights, search)
        moved = weights - search.lr_w * (way * losses + 2 * search.gamma * weights)
        weights = project(moved, search.count)
    return weights


def _unlearned_losses(model: nn.Module, rows: Source, task: str, seed: int, stay: Tensor, search: Search) -> Tensor:
    """Each row's loss after descent from ``model`` on all rows weighed by ``stay``; float64 (n,)."""
    start = Problem(model, task=task, seed=seed, train=replaced(rows, stay=stay.float()))
    problem = start.copy()
    inner = Descent(fit("train").weighted(_stay), how=Sign(), opt=sgd(search.lr), epochs=search.epochs,
                    batch=search.batch)  # fmt: skip
    Run(inner, problem).go()
    with torch.no_grad():
        return problem.tabulate(
            "train", lambda nets, batch: problem.task.each(problem.served(nets, batch), batch)
        ).double()


def _stay(step: Step, on: On) -> Tensor:
    weights: Tensor = step.batch(on)["stay"]
    return weights


def project(weights: Tensor, total: float) -> Tensor:
    """The nearest point with entries in [0, 1] and the sum ``total``: ``clip(w - mu, 0, 1)``, mu by halving."""
    low, high = weights.min() - 1, weights.max()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if (weights - middle).clamp(0, 1).sum() > total else (low, middle)
    return (weights - (low + high) / 2).clamp(0, 1)
