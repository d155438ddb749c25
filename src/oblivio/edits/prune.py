"""Set the smallest weights to zero."""

from __future__ import annotations

from oblivio.core.grads import top
from oblivio.core.plan import edit
from oblivio.core.problem import Problem


@edit
def prune(problem: Problem, rate: float = 0.95) -> None:
    """One-shot magnitude pruning: the ``rate`` share of entries in matrices and kernels, ranked at once, goes to 0."""
    weights = {n: w for n, w in problem.weights("model.*").items() if w.dim() > 1}
    for name, kept in top({n: w.abs() for n, w in weights.items()}, 1 - rate).items():
        weights[name].mul_(kept)
