"""Two late points of training: how far weights and gradients moved between them, for a Hessian by differences."""

from __future__ import annotations

from typing import Any

import torch

from oblivio.core.grads import Grads, add
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import On
from oblivio.core.where import How
from oblivio.terms import fit

Point = dict[str, Grads]  # "weights" and "gradients", each by weight name


def late_checkpoints(problem: Problem, lr: float = 1e-3) -> dict[str, Any]:
    """Made after training, by two steps of size ``lr`` down the whole gradient of ``train``; the weights come back.

    Returns ``weights`` and ``gradients``, the second point's values less the first's, one tensor a weight, and
    ``rows``, the number of training rows. See ``late`` for points of the training itself.
    """
    held = {n: w.detach().clone() for n, w in problem.weights("model.*").items()}
    points = []
    try:
        for _ in range(2):
            slope = problem.gradient(fit("train"))
            with torch.no_grad():
                for name, weight in problem.weights("model.*").items():
                    weight.sub_(lr * slope[name] if name in slope else 0)
            points.append(_point(problem, "train"))
    finally:
        with torch.no_grad():
            for name, weight in problem.weights("model.*").items():
                weight.copy_(held[name])
    return _between(problem, "train", *points)


class late(How):
    """Put on a training's Descent it leaves the record ``late_checkpoints``: after the last step and ``apart`` before.

    Two gradients over all rows of ``on``, in evaluation mode; the training itself is not changed.
    """

    def __init__(self, on: On = "train", apart: int = 1) -> None:
        self.on, self.apart = on, apart

    def after(self, step: Step) -> None:
        if step.end - step.t == 1 + self.apart:
            self.state["first"] = _point(step.problem, self.on)
        elif step.end - step.t == 1 and "first" in self.state:
            last = _point(step.problem, self.on)
            step.problem.records["late_checkpoints"] = _between(step.problem, self.on, self.state.pop("first"), last)

    def __repr__(self) -> str:
        return f"late({self.on!r}, apart={self.apart})"


def _point(problem: Problem, on: On) -> Point:
    weights = {n: w.detach().clone() for n, w in problem.weights("model.*").items()}
    slope = problem.gradient(fit(on))
    return {"weights": weights, "gradients": {n: slope.get(n, torch.zeros_like(w)) for n, w in weights.items()}}


def _between(problem: Problem, on: On, first: Point, last: Point) -> dict[str, Any]:
    moved = {key: add(last[key], first[key], -1) for key in ("weights", "gradients")}
    return {**moved, "rows": len(problem.source(on))}
