"""Learning without forgetting: the new rows must not change what the model before them says of them."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio import terms, where
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Plan, Stage
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.registry import method
from oblivio.terms.distill import outputs


@term(frozen=(outputs,))
def answers(step: Step, on: On, temperature: float) -> Tensor:
    """Cross-entropy to the tempered answers of the start, summed over the heads that were learned before."""
    then, now = step.frozen(on, outputs) / temperature, step.out(on) / temperature
    heads = getattr(step.task, "outputs", None)
    total = torch.zeros(len(now), device=now.device)
    for columns in [None] if heads is None else heads.heads:
        q, s = (then, now) if columns is None else (then[:, columns], now[:, columns])
        total = total - (q.softmax(1) * s.log_softmax(1)).sum(1)
    return total


@method(
    kind="continual",
    paper="Li and Hoiem, Learning without Forgetting, TPAMI 2017",
    needs=("new",),
    tasks=("classification",),
    aliases=("learning_without_forgetting",),
    cost="one pass over the new rows for the answers of the model before; nothing is stored between experiences",
)
def lwf(
    lambda_o: Annotated[float, Field(ge=0)] = 1.0,
    temperature: Annotated[float, Field(gt=0)] = 2.0,
    warmup: Annotated[float, Field(ge=0)] = 0,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Learn the new rows and reproduce the answers of the model before them, on the same rows.

    Equation: min CE(new) + lambda_o sum over old heads of -softmax(q / T) log softmax(s / T), without a factor T^2; q
    are the answers before the experience, looked up by row. The heads are those of earlier tasks, or all earlier
    classes as one in the scenario ``class``, or all outputs in ``domain``. For ``warmup`` epochs the last layer alone
    is trained.
    Needs: new rows and knowledge of where an experience begins; stores no rows.
    Fails: in the scenario ``class``, where the loss on new rows alone drives all their scores to new classes.
    """
    new, opt = terms.fit("new"), sgd(lr, momentum, carry=True)
    total = new + terms.later * (lambda_o * answers("new", temperature))
    first = [Descent(new, where=where.head(), over="new", epochs=warmup, batch=batch, opt=sgd(lr))] if warmup else []
    return Plan([*first, Descent(total, over="new", epochs=epochs, batch=batch, opt=opt)])
