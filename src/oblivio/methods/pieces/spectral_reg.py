"""Spectral regularisation: a piece that keeps every layer as trainable as it was at the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from oblivio import terms
from oblivio.core.plan import Stage
from oblivio.registry import method


@method(
    kind="piece",
    paper="Lewandowski et al., Learning Continually by Spectral Regularization, ICLR 2025",
    needs=("new|retain|train",),
    on="er",
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("spectral_regularization", "spectral_regularisation", "wasserstein_regularizer"),
    cost="two matrix-vector products a layer and step, or a sort of the weights; no data",
)
def spectral_reg(
    lam: Annotated[float, Field(ge=0)] = 1e-3,
    k: Annotated[int, Field(ge=1)] = 2,
    towards: Literal["spectral", "wasserstein"] = "spectral",
) -> Callable[[Stage], Stage]:
    """Hold the greatest singular value of every layer near 1, or (wasserstein) the weights as they were distributed.

    Equation: L + lam R, with R = sum_l (sigma_l^k - 1)^2 + sum_l (|b_l|^k)^2, and (|g|^k - 1)^2 for every scale g of a
    normalisation layer; or R = sum (sort(theta) - sort(theta_start))^2 over each tensor, whatever k. Sums over
    the layers and entries that may move, never means.
    Needs: a plan with a Descent; the one towards the start's distribution is for models that have not learned yet.
    Fails: on a trained model whose layers are far from sigma = 1 it changes the function until they are near; a large
    lam keeps networks from fitting at all.
    """
    return lambda plan: plan.but(
        loss=lambda total: total + lam * (terms.spectral(k) if towards == "spectral" else terms.wasserstein())
    )
