"""Scale down the weights that matter much more to one set of rows than to another."""

from __future__ import annotations

from oblivio.core.grads import Grads
from oblivio.core.importance import fisher
from oblivio.core.plan import edit
from oblivio.core.problem import Problem


@edit
def dampen(problem: Problem, alpha: float = 5.0, strength: float = 1.0) -> None:
    """theta_i <- min(strength * I_all / I_forget, 1) * theta_i where I_forget > alpha * I_all.

    I is the exact diagonal Fisher. That of all training rows is the record ``importance`` if the problem has one, else
    it is computed from retain and forget. Buffers stay.
    """
    forget = fisher(problem, "forget")
    everything: Grads = problem.records.get("importance") or importance(problem, forget)
    for name, weight in problem.weights("model.*").items():
        f, d = forget[name], everything[name]
        factor = (strength * d / f.clamp_min(1e-38)).clamp(max=1)
        weight.mul_(factor.where(f > alpha * d, 1.0))


def importance(problem: Problem, forget: Grads | None = None) -> Grads:
    """The exact diagonal Fisher of all training rows, from those of retain and forget weighed by their counts."""
    forget = fisher(problem, "forget") if forget is None else forget
    retain = fisher(problem, "retain")
    n, m = len(problem.source("forget")), len(problem.source("retain"))
    return {k: (n * forget[k] + m * retain[k]) / (n + m) for k in forget}
