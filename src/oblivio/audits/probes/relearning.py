"""Relearning: how fast a few forgotten rows bring the rest back, under a last layer that starts anew."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oblivio.audits.case import Case, Look
from oblivio.audits.probe import DoesNotApply, Value, of_task, probe
from oblivio.audits.seen import bare
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import generator
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.how import clip
from oblivio.modules.heads import last_linear
from oblivio.sources import as_source
from oblivio.terms import fit

FEW = 20  # rows of a class to relearn from, of the forgotten and of the retained; at most half of those there are
LEAST = 20  # forgotten rows
HELD = 1000  # forgotten rows to score on, at most
STEPS = (5, 10, 20, 40)  # when they are scored


@probe("gone", "relearned from a few rows, held-out forgotten rows", "task", about="features",
       needs=("forget", "retain"))  # fmt: skip
def relearning(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The task's figure on held-out forgotten rows, mean over 5, 10, 20 and 40 steps of training on a few others.

    The rows are 20 of a class (of all, where rows have no class), half of them at most, and as many retained ones of
    each class that stays. A mask is taken off and the last layer set to 0, so that neither can hide what the other
    layers know; nothing is drawn, so models differ by their weights alone. All weights are trained. A model that never
    learned the rows learns them more slowly.
    """
    few, held = _parted(case)
    model = relieved(look.subject.nets["model"])
    there = Problem(model, task=case.problem.task, seed=case.problem.seed, team=case.problem.team, train=few, held=held)
    found = torch.stack(qualities(there))
    curve = [(step, float(values.double().mean())) for step, values in zip(STEPS, found, strict=True)]
    value = of_task(case, found.mean(0))
    return Value(value.value, value.low, value.high, value.rows, curve)


def _parted(case: Case) -> tuple[Source, Source]:
    """A few rows to learn from, and forgotten rows that are not among them."""
    gone, stays = case.problem.source("forget"), case.problem.source("retain")
    first, rest = _few(case, "forget"), _few(case, "retain")
    if len(gone) < LEAST or not len(first):
        raise DoesNotApply(f"{len(gone)} forgotten rows are too few to relearn from some and score on others")
    held = torch.ones(len(gone), dtype=torch.bool)
    held[first] = False
    parts = (gone.batch(first), stays.batch(rest))
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("x", "y")}
    places = held.nonzero().flatten()
    return as_source(joined), gone.take(places[:: -(-len(places) // HELD)])


def _few(case: Case, on: str) -> Tensor:
    """Places of some rows of each class; of all rows, where they have no class."""
    y = case.targets[on]
    strata = [y == c for c in y.unique()] if case.labelled else [torch.ones(len(y), dtype=torch.bool)]
    chosen = []
    for stratum in strata:
        places = stratum.nonzero().flatten()
        order = torch.randperm(len(places), generator=generator(case.problem.seed, "relearning", on))
        chosen.append(places[order[: min(FEW, len(places) // 2)]])
    return torch.cat(chosen)


def relieved(model: nn.Module) -> nn.Module:
    """A copy without what is wrapped around the network, its last linear layer set to 0."""
    other = copy.deepcopy(bare(model))
    if not any(isinstance(module, nn.Linear) for module in other.modules()):
        raise DoesNotApply("the model has no linear layer that could start anew")
    for weight in other.get_submodule(last_linear(other)).parameters():
        nn.init.zeros_(weight)
    return other


def qualities(problem: Problem) -> list[Tensor]:
    """The task's figure of every row of ``held`` at each of ``STEPS``, while the model trains on ``train``."""
    found = []

    def look(run: Run, stage: Stage, step: Step) -> None:
        if run.steps in STEPS:
            with torch.no_grad():
                task = problem.task
                found.append(problem.tabulate("held", lambda nets, b: task.quality(problem.served(nets, b), b)).cpu())

    plan = Descent(fit("train"), how=clip(1), opt=sgd(0.05, 0.9), steps=STEPS[-1], batch=None)
    Run(plan, problem, watch=[look]).go()  # the clip keeps a model of very large features, such as noise, finite
    return found
