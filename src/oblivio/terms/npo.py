"""Negative preference: press a score below where it started, with a force that fades as it falls."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from oblivio.core.step import Step
from oblivio.core.term import On, term


@term(frozen=("score",))
def npo(step: Step, on: On, beta: float = 0.1) -> Tensor:
    """(2 / beta) log(1 + (p / p_start)^beta), p the likelihood of the example's own target (Zhang et al., 2024).

    beta to 0 gives gradient ascent on the log-likelihood.
    """
    batch = step.batch(on)
    start = step.frozen(on, "score")
    return 2 / beta * softplus(beta * (step.task.score(step.out(on), batch) - start))
