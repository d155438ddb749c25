"""LoReUn: a piece that weighs each forgotten row by how well the model remembers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from oblivio import terms
from oblivio.core.plan import Stage
from oblivio.registry import method


@method(
    kind="piece",
    paper="LoReUn: Data Itself Implicitly Provides Cues to Improve Machine Unlearning, 2025",
    needs=("forget",),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links"),
    aliases=("loss_reweighting",),
    cost="none: the losses come from the same forward; static: one pass over forget, and a copy of the weights",
)
def loreun(
    tau: Annotated[float, Field(gt=0)] = 1.0,
    variant: Literal["dynamic", "static"] = "dynamic",
) -> Callable[[Stage], Stage]:
    """Give most of the forgetting pressure to the rows with the smallest loss, at every step anew or once (static).

    Equation: sum_i w_i l_forget(x_i) / n with w_i proportional to exp(-l(x_i) / tau), l at the present weights and w of
    mean 1 over the batch, or, static, l at those before unlearning and w of mean 1 over the forget set; no gradient
    through w.
    Needs: a method whose forget term has one value a row; an edit such as ssd has none and is refused.
    Fails: a low tau with a high rate hurts the retained rows; choose tau last. Dynamic, batches cannot be chunked;
    static, the pressure stays on rows that are forgotten already.
    """
    weigh = terms.memorised(tau) if variant == "dynamic" else terms.memorised_at_start(tau)
    return lambda plan: plan.but(loss=lambda total: total.map("forget", lambda t: t.weighted(weigh)))
