"""Bad teaching: a competent teacher on what stays, an incompetent one on what goes, at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.edits import drop, fresh
from oblivio.registry import method
from oblivio.until import unseen


@method(
    paper="Chundawat et al., Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks Using an Incompetent "
    "Teacher, AAAI 2023",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel"),
    aliases=("bad_teaching", "badt", "bad_t", "incompetent_teacher", "blindspot"),
    cost="one pass over retain for the start's outputs, then epochs over retain, and a forget batch beside each; a "
    "second network in memory",
)
def bad_teacher(
    forget: Annotated[float, Field(gt=0)] = 0.2,
    temperature: Annotated[float, Field(gt=0)] = 1.0,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    epochs: Annotated[float, Field(gt=0)] = 5,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Let the model imitate a network that has learned nothing on the forgotten rows, and its own start on the rest.

    Equation: min forget KL(fresh || f)(forget) + KL(start || f)(retain), outputs divided by the temperature; the fresh
    network has the model's architecture and random weights. Stops as soon as the forgotten rows do no better than
    unseen ones would, if the problem has ``valid`` rows to tell.
    Needs: forgotten and retained rows; their labels serve the stop alone. Modules that can draw their weights anew
    (``reset_parameters``).
    Fails: a class that goes ends at chance, where a retrained model never names it; with too few steps the rest is
    harmed. The paper mixes the forgotten rows and three tenths of the others in one batch, so ``forget`` stands here
    for their share. Its rate of 1e-4 and one epoch are for large pretrained networks; those here were chosen on digits.
    """
    loss = forget * terms.imitate("forget", temperature=temperature) + terms.distill("retain", temperature)
    descent = Descent(loss, opt=adam(lr), over="retain", epochs=epochs, batch=batch, until=unseen(), every=5)
    return fresh() >> descent >> drop()
