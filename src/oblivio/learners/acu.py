"""acu: a frozen encoder, a fixed random expansion and a ridge head, with no row kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from oblivio.learners.ridge import Ridge
from oblivio.registry import method


@method(
    paper="ACU: Analytic Continual Unlearning for Efficient and Exact Forgetting with Privacy Preservation (2025)",
    needs=(),
    tasks=("classification", "regression"),
    cost="a request of k rows: k M^2; M^2 + M C numbers are kept twice, as sums and as inverse and weights; no rows",
    kind="learner",
    guarantee="exact",
)
def acu(
    expand: Annotated[int, Field(gt=0)] = 500, gamma: Annotated[float, Field(gt=0)] = 1.0, keep: bool = False
) -> Callable[..., Ridge]:
    """Recursive least squares in both directions on random features of a frozen encoder, with no row kept.

    ``acu(expand=500)(encoder, task="classification")`` is a learner: see ``Ridge``. The rows to forget come with the
    request, ``forget(ids, rows)``, and are compared with the digests that were kept of them; with ``keep`` ids do.

    Equation: phi(x) = relu(f(x) P); R <- R + R X' (I - X R X')^-1 X R; W <- W - R X' (T - X W).
    Needs: a frozen encoder that was not trained on what will be forgotten; the rows to forget, given again.
    Fails: where the encoder has seen the rows; the sums R stands on are second moments of all rows, and private too.
    Defaults: 500 features are enough for digits; image encoders take 8192. gamma is the upper end of the card's range.
    """
    return functools.partial(Ridge, expand=expand, gamma=gamma, keep=keep)
