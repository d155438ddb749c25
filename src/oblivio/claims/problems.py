"""The little problems that claims share, and what is measured on them.

All are handwritten digits, 1,200 rows to train on and 597 to test, and an MLP 64-256-64-10 trained by Adam with rate
1e-3 in batches of 64. Each is a trained model with rows that must go, and a model retrained without them from other
random weights; both are kept in the cache of trained models.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from oblivio import data
from oblivio.core.descent import Descent
from oblivio.core.part import walk
from oblivio.core.plan import Plan, Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.data.columns import column
from oblivio.jobs.cache import trained
from oblivio.jobs.method import apply
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.jobs.references import seed_of
from oblivio.networks import Architecture
from oblivio.sources import Tensors

NETWORK = Network(Architecture("mlp", (1, 8, 8), 10, {"hidden": [256, 64]}))  # on grey values in [0, 1] as they are
WRONG = 0.1  # the share of training labels that are made wrong
ROWS, CLASS = "digits with a tenth of the labels wrong and memorised; these rows go", "digits; class 3 goes"
Look = Callable[[Problem], float]
Make = Callable[[int], "Case"]


@dataclass(frozen=True)
class Case:
    """A trained model with rows to forget (``start``), and one that never saw them, as problems on the same rows."""

    start: Problem
    retrained: Problem

    def after(self, plan: Stage) -> Problem:
        """The start after a plan, on copies of its networks."""
        return apply(plan, self.start)[0]

    def path(self, plan: Stage, **looks: Look) -> list[dict[str, float]]:
        """What ``looks`` see at the start and after each step of a plan."""
        seen = [_seen(self.start, looks)]

        def watch(run: Run, stage: Stage, step: Step) -> None:
            seen.append(_seen(run.problem, looks))

        apply(plan, self.start, watch=[watch])
        return seen


def _seen(problem: Problem, looks: dict[str, Look]) -> dict[str, float]:
    return {name: look(problem) for name, look in looks.items()}


def memorised(seed: int) -> Case:
    """A tenth of the labels is wrong and was memorised in 150 epochs; those rows go.

    ``score("forget")`` is the accuracy on the wrong labels: nothing but memory gives it.
    """
    rows = digits().train
    wrong = np.random.default_rng(mix(seed, "wrong")).permutation(len(rows))[: round(WRONG * len(rows))]
    goes = np.zeros(len(rows), dtype=bool)
    goes[wrong] = True
    return _case(mislabelled(rows, goes, seed), goes, 150, seed)


def mislabelled(rows: Source, where: Any, seed: int) -> Source:
    """The rows, each of those in the mask ``where`` with a label drawn from the nine others."""
    labels = column(rows, "y").copy()
    shift = np.random.default_rng(mix(seed, "labels")).integers(1, 10, int(where.sum()))
    labels[where] = (labels[where] + shift) % 10
    return Tensors({"x": column(rows, "x"), "y": labels}, ids=rows.ids)


def without(classes: tuple[int, ...], seed: int) -> Case:
    """Whole classes go, after 60 epochs; the source ``kept`` holds the test rows of the others."""
    rows = digits().train
    return _case(rows, np.isin(column(rows, "y"), classes), 60, seed)


def class_three(seed: int) -> Case:
    """Class 3 goes."""
    return without((3,), seed)


@cache
def digits() -> data.Dataset:
    """Handwritten digits."""
    return data.load("digits")


def _case(rows: Source, goes: Any, epochs: int, seed: int) -> Case:
    recipe = Recipe(optimiser="adam", lr=1e-3, schedule="constant", epochs=epochs, batch=64)
    forget, retain, test = rows.take(goes), rows.take(~goes), digits().test
    kept = test.take(np.isin(column(test, "y"), column(retain, "y")))
    original = trained(recipe, NETWORK, rows, seed, task="classification").module
    reference = trained(recipe, NETWORK, retain, seed_of(seed, 0), task="classification").module

    def problem(model: torch.nn.Module) -> Problem:
        return Problem(model, task="classification", seed=seed, forget=forget, retain=retain, test=test, kept=kept)

    return Case(problem(original), problem(reference))


# --- what is measured


def accuracy(on: str) -> Look:
    """A look at the accuracy on a source."""
    return lambda problem: problem.score(on)


def likelihood(on: str) -> Look:
    """A look at the mean probability that rows of a source give to their own label."""

    def look(problem: Problem) -> float:
        with torch.no_grad():
            scores = problem.tabulate(on, lambda nets, batch: problem.task.score(problem.served(nets, batch), batch))
        return float(scores.exp().mean())

    return look


def chance(problem: Problem) -> float:
    """What the best constant answer scores on the retained rows: where a collapsed model ends."""
    labels = column(problem.source("retain"), "y")
    return float(np.bincount(labels).max() / len(labels))


def first(path: list[dict[str, float]], name: str, most: float) -> dict[str, float]:
    """The first point of a path at which ``name`` is ``most`` or less; its end where that never comes."""
    return next((point for point in path if point[name] <= most), path[-1])


def unstopped(plan: Stage) -> Stage:
    """The plan without rules that end it early, for a number of steps that is fixed."""
    whole = copy.deepcopy(plan)
    for _, part in walk(whole):
        if isinstance(part, Descent):
            part.until = None
    return whole


def nothing(**settings: Any) -> Stage:
    """A plan without a stage, whatever the settings: a method as a no-op."""
    return Plan([])
