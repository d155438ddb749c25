"""SCRUB: steps away from the start on what goes, and steps back to it on what stays, in turns."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Cycle, Stage
from oblivio.registry import method
from oblivio.terms import distill, fit
from oblivio.until import first


@method(
    paper="Kurmanji et al., Towards Unbounded Machine Unlearning, NeurIPS 2023",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel"),
    aliases=("scalable_remembering_and_unlearning",),
    cost="one pass over both for the start's outputs, then msteps epochs over forget and epochs over retain",
)
def scrub(
    msteps: Annotated[int, Field(gt=0)] = 3,
    alpha: Annotated[float, Field(ge=0)] = 0.001,
    gamma: Annotated[float, Field(ge=0)] = 0.99,
    temperature: Annotated[float, Field(gt=0)] = 1.0,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    epochs: Annotated[int, Field(gt=0)] = 5,
    forget_batch: Annotated[int, Field(gt=0)] = 32,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Move away from the start's answers on the forgotten rows for some epochs, each followed by one that repairs.

    Equation: ``epochs`` times, each of the first ``msteps`` of them after a pass of max T^2 KL(start || f)(forget): a
    pass of min alpha T^2 KL(start || f)(retain) + gamma CE(retain), outputs divided by the temperature T; by one Adam.
    Needs: forgotten rows, retained rows with labels.
    Fails: the ascent has no bound, so a high rate or many ``msteps`` leave more harm than the other epochs repair; too
    few leave memorised rows. At the start the gradient of the ascent is zero, and at a temperature above 1 it may lead
    to surer answers instead of others. The rewinding of SCRUB+R, to the epoch whose forget error is that of unseen
    rows, is left out. Alpha, gamma and the batch of forgotten rows are those of the official code, which has a
    temperature of 2 or 4, 2 msteps and a rate of 5e-4; ours were chosen on digits.
    """
    opt = adam(lr)
    away = Descent(-distill("forget", temperature), opt=opt, epochs=first(msteps), batch=forget_batch)
    back = alpha * distill("retain", temperature) + gamma * fit("retain")
    return Cycle(away, Descent(back, opt=opt, over="retain", epochs=1, batch=batch), rounds=epochs)
