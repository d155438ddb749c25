"""Datamodel matching: train towards the outputs that data attribution predicts for a model without the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.records.attribution import effect
from oblivio.registry import method

MATCHED = "matched"  # the source of rows with targets that is made


@edit(makes=True)
def predict_outputs(problem: Problem, kappa: float, multiplier: float) -> None:
    """Make the source ``matched``: forgotten rows and a sample of retained ones, with the outputs to be matched."""
    gone, kept = problem.source("forget"), problem.source("retain")
    if "attribution" not in problem.records:
        raise BadInput("dmm needs the record 'attribution'; make it by oblivio.records.make('attribution', problem)")
    g = generator(problem.seed, problem.turn, "dmm")
    sample = kept.take(torch.randperm(len(kept), generator=g)[: round(multiplier * len(gone))])
    inputs, targets = [], []
    for source in (gone, sample):
        now = problem.tabulate(source, lambda nets, batch: problem.task.forward(nets, "model", batch))
        change = effect(problem.records["attribution"], gone.ids.tolist(), source.ids.tolist())
        targets.append(now - kappa * change.to(now).view_as(now))
        inputs += [batch["x"] for batch in source.batches(512)]
    problem.make(MATCHED, x=torch.cat(inputs), target=torch.cat(targets))


@term
def match(step: Step, on: On) -> Tensor:
    """The squared distance of the outputs to the column ``target``, mean over the outputs."""
    return (step.out(on) - step.batch(on)["target"]).flatten(1).square().mean(1)


@dataclass(frozen=True)
class decay:
    """The rate times ``by`` after each epoch over the matched rows."""

    batch: int
    by: float = 0.95

    def __call__(self, step: Step) -> float:
        return float(self.by ** (step.t // -(-len(step.source(MATCHED)) // self.batch)))


@method(
    paper="Georgiev et al., Attribute-to-Delete: Machine Unlearning via Datamodel Matching, 2024",
    needs=("forget", "retain", "attribution"),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("datamodel_matching", "attribute_to_delete"),
    cost="epochs over (1 + multiplier) |forget| rows; the record is hundreds of small trainings, once",
    labels=False,
)
def dmm(
    kappa: Annotated[float, Field(gt=0)] = 1.0,
    multiplier: Annotated[float, Field(ge=0)] = 3.0,
    lr: Annotated[float, Field(gt=0)] = 2e-3,
    epochs: Annotated[float, Field(gt=0)] = 30,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Fine-tune towards the outputs that a model retrained without the rows is predicted to have.

    Equation: min mean (f(x) - h(x))^2 with h(x) = f_start(x) - kappa sum_{i in forget} tau(i, x), over the forgotten
    rows and ``multiplier`` times as many retained ones, drawn once; tau(i, x) is the change of the outputs on x that
    the presence of row i makes, from the record ``attribution``.
    Needs: forgotten and retained rows with the ids of the rows that the record was made from, read without
    augmentation. Labels are not used.
    Fails: where the record's trainings differ from the original's, or are too few: tau is then of another size, or
    noise. Models that share the rows by half feel each of them more: of a linear model tau is about twice too large,
    and kappa the share ``keep`` of the record; of networks that know rows by heart it is too small. Rate and epochs
    were chosen on 300 digits; the paper's 5 epochs are for 50,000 images.
    """
    opt = adam(lr, schedule=decay(batch))
    return predict_outputs(kappa, multiplier) >> Descent(match(MATCHED), opt=opt, epochs=epochs, batch=batch)
