"""Sharpness-aware unlearning: a piece that flattens the forget loss of any method, against relearning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from oblivio import terms
from oblivio.core.plan import Stage
from oblivio.methods.pieces import _forgetting
from oblivio.registry import method


@method(
    kind="piece",
    paper="Fan et al., Towards LLM Unlearning Resilient to Relearning Attacks: A Sharpness-Aware Minimization "
    "Perspective and Beyond, ICML 2025",
    needs=("forget",),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links", "causal_lm", "vision_language"),
    aliases=("sharpness_aware_unlearning",),
    cost="one more pass over each forget batch",
)
def sam(rho: Annotated[float, Field(gt=0)] = 0.05) -> Callable[[Stage], Stage]:
    """Take the gradient of the forget terms where they are locally worst; the other terms stay as they are.

    Equation: grad L_forget(theta + rho g / |g|) + grad L_rest(theta), with g = grad L_forget(theta).
    Needs: a method with a forget term; an edit such as ssd has none and is refused.
    Fails: a large rho weakens the forgetting itself.
    """
    return lambda plan: _forgetting.put(plan, lambda t: terms.sam(t, rho=rho), "sam")
