"""Stochastic teacher: first imitate a random network on what goes, then the start on what stays."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.edits import drop, fresh
from oblivio.registry import method


@method(
    paper="Zhang et al., Machine Unlearning Methodology Base on Stochastic Teacher Network, ADMA 2023",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel"),
    serves=("class",),
    refusal="nothing stops it where unseen rows would be: it takes the forgotten rows to chance, where a model "
    "retrained without random rows still gets most right",
    aliases=("stn", "stochastic_teacher_network"),
    cost="one pass over retain for the start's outputs, erase_epochs over forget, then rebuild_epochs over retain; a "
    "second network in memory for the first phase",
    labels=False,
)
def stochastic_teacher(
    erase_epochs: Annotated[float, Field(gt=0)] = 1,
    rebuild_epochs: Annotated[float, Field(gt=0)] = 1,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    erase_batch: Annotated[int, Field(gt=0)] = 16,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Erase by imitating a network with random weights on the forgotten rows, then rebuild from the start on the rest.

    Equation: min KL(random || f)(forget), and when that is done min KL(start || f)(retain), both by one Adam, whose
    moments go on from the first phase: with moments of its own, the second brings the class back.
    Needs: forgotten and retained rows, no labels. Modules that can draw their weights anew (``reset_parameters``).
    Fails: a high rate destroys what the classes share; rebuilding that goes by another optimiser brings the class back
    (measured in its claim). Defaults are the paper's epochs; the rate is that of training on digits.
    """
    opt = adam(lr)
    erase = Descent(terms.imitate("forget"), opt=opt, epochs=erase_epochs, batch=erase_batch)
    rebuild = Descent(terms.distill("retain"), opt=opt, epochs=rebuild_epochs, batch=batch)
    return fresh() >> erase >> drop() >> rebuild
