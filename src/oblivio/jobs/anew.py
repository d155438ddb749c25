"""References for a model of the user's own: its network with new random weights, trained on the rows that stay."""

from __future__ import annotations

import numpy as np
from torch import nn

from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.edits import reset
from oblivio.jobs.recipe import Recipe
from oblivio.jobs.references import Reference, control_seed, exact_seed, seed_of
from oblivio.jobs.training import fitted
from oblivio.sources import Tensors


def references(original: Problem, recipe: Recipe, count: int, first: int = 0) -> list[Reference]:
    """Models of the original's network that never saw the forgotten rows.

    Args:
        original: the request; ``retain`` is trained on.
        recipe: how the original was trained.
        count: how many.
        first: the number of the first of them; each number has weights of its own.

    Raises:
        BadInput: a module that owns weights and cannot draw them anew, or no retained rows.
    """
    seeds = [seed_of(original.seed, number) for number in range(first, first + count)]
    return [_trained(original, recipe, original.source("retain"), seed) for seed in seeds]


def exact(original: Problem, recipe: Recipe) -> Reference:
    """One more such model, which is no reference: what serves where no method was accepted."""
    return _trained(original, recipe, original.source("retain"), exact_seed(original.seed))


def control(original: Problem, recipe: Recipe) -> nn.Module:
    """A model of the original's network that saw all rows."""
    return _trained(original, recipe, _together(original), control_seed(original.seed)).module


def _trained(original: Problem, recipe: Recipe, rows: Source, seed: int) -> Reference:
    fresh = Problem(original.copy().model, task=original.task, seed=seed, team=original.team, retain=rows)
    Run(reset(), fresh).go()
    made = fitted(fresh.model, recipe, fresh.source("retain"), seed, task=original.task, team=original.team)
    return Reference(made.module.eval(), made.seconds, made.rows)


def _together(original: Problem) -> Source:
    """Forgotten and retained rows as one source."""
    both = [original.source("retain"), original.source("forget")]
    names = [name for name in both[0].columns if name in both[1].columns]
    return Tensors({name: np.concatenate([column(source, name) for source in both]) for name in names})
