"""Experience replay: a small uniform sample of everything seen, and at every step a batch of it. The one to beat."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.registry import method
from oblivio.sources import Buffer


def share_new(step: Step) -> float:
    """One part in as many as there were experiences."""
    return 1 / max(step.problem.turn, 1)


def share_old(step: Step) -> float:
    """The parts of all earlier experiences."""
    return 1 - share_new(step)


@method(
    kind="continual",
    paper="Chaudhry et al., On Tiny Episodic Memories in Continual Learning, 2019",
    needs=("new",),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("experience_replay", "replay"),
    cost="one more forward and backward a step, over the replayed batch; the stored rows",
)
def er(
    buffer: Annotated[int, Field(gt=0)] = 500,
    beta: Annotated[float, Field(ge=0)] = 1.0,
    weights: Literal["equal", "tasks"] = "equal",
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 32,
    replay: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Learn the new rows and, beside each batch, as many stored ones; then let the new batch pass the store.

    Equation: min CE(new) + beta CE(replay), two means; ``weights="tasks"`` weighs them 1/t and 1 - 1/t in experience t.
    Needs: new rows; it keeps ``buffer`` of them as they are read, with their ids. No boundaries.
    Fails: with very few rows a class they are learned by heart. New and stored rows pass a batch-norm layer apart.
    """
    stored = Buffer(buffer, batch=replay)
    new, old = terms.fit("new"), terms.fit(stored)
    total = new + beta * old if weights == "equal" else share_new * new + share_old * (beta * old)
    return Descent(total, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum, carry=True))
