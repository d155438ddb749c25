"""Prompt Decouple (SafeEraser): a piece that keeps a model from refusing all that is asked like what it forgot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from oblivio.core.descent import Descent
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.term import source_name
from oblivio.registry import method
from oblivio.terms import fit

DECOUPLED = "decoupled"


@method(
    kind="piece",
    paper="Chen et al., SafeEraser: Enhancing Safety in Multimodal Large Language Models through Multimodal Machine "
    "Unlearning, 2025",
    needs=("decoupled",),
    on="grad_diff",
    tasks=("causal_lm", "vision_language"),
    aliases=("prompt_decouple", "pd"),
    cost="a batch of decoupled rows beside each of the plan's",
)
def safeeraser(weight: Annotated[float, Field(gt=0)] = 0.5) -> Callable[[Stage], Stage]:
    """Train the forgotten questions with their normal answers too, where the picture is another and harmless.

    Equation: L + weight CE(decoupled). The paper has 0.5 with ascent (GA+PD) and gradient difference (GD+PD), 1 with
    KL minimisation (KL+PD) and refusals (PO+PD).
    Needs: rows ``decoupled``, each a forgotten question about a harmless picture with the answer that it should have; a
    method that trains on the forgotten rows. Without pictures it is the same for harmless contexts of a question.
    Fails: with few decoupled rows these are learned by heart and others are refused as before: measure it on others.
    """

    def put(plan: Stage) -> Stage:
        changed = plan.but(loss=lambda total: total + weight * fit(DECOUPLED))
        for descent in (part for _, part in walk(changed) if isinstance(part, Descent)):
            read = [on for on in descent.loss.reads if source_name(on) != DECOUPLED]
            if descent.over is None and len(read) == 1:  # an epoch passes what it did before
                descent.over = read[0]
        return changed

    return put
