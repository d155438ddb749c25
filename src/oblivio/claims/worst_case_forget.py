"""Worst-case forget sets: a bi-level search finds rows that even a retrained model still gets right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
import torch

from oblivio.claims.claim import Claim, Figures, Method
from oblivio.core.problem import Problem
from oblivio.core.source import Source
from oblivio.data.manipulate import chosen, draw
from oblivio.problems import spec
from oblivio.problems.loading import pool_of
from oblivio.problems.pool import Pool
from oblivio.problems.worst import Search, worst_ids

COUNT = 120  # of 1,200 rows
EPOCHS = 15
AWAY = {False: 1.0, True: 0.1}  # lr_w of the search for the hardest and for the easiest set
RETRAINED = 2  # models a set
Ids: TypeAlias = Any
Choose = Callable[[Pool, bool], Ids]


def searched(**settings: Any) -> Choose:
    """The ids that the search finds; the easiest where asked."""

    def choose(pool: Pool, easiest: bool) -> Ids:
        search = Search(count=COUNT, lr_w=AWAY[easiest], easiest=easiest)
        return worst_ids(pool.trainer, pool.train, pool.seed, search)

    return choose


def drawn(**settings: Any) -> Choose:
    """Random rows of the same number; others for the easiest."""
    return lambda pool, easiest: draw(pool.train, COUNT, pool.seed + 1 + easiest)


def by_loss(pool: Pool, problem: Problem) -> Ids:
    """The rows with the lowest loss at the start."""
    losses = problem.tabulate("train", lambda nets, batch: problem.task.each(problem.served(nets, batch), batch))
    return pool.train.ids[losses.detach().argsort(stable=True)[:COUNT].numpy()]


@dataclass(frozen=True)
class Never:
    """What retrained models do: the share of the forgotten rows they get wrong, and their test accuracy."""

    error: float
    test: float


def retrained(pool: Pool, ids: Ids) -> Never:
    """Models trained without these rows."""
    goes = chosen(pool.train, ids)
    stays, forget = pool.train.take(~goes), pool.train.take(goes)
    models = [pool.trainer.reference(i, stays, pool.seed) for i in range(RETRAINED)]
    return Never(1 - fmean(_score(m, forget, pool) for m in models), fmean(_score(m, pool.test, pool) for m in models))


def _score(model: torch.nn.Module, rows: Source, pool: Pool) -> float:
    return Problem(model, task=pool.trainer.task, rows=rows).score("rows")


def measure(method: Method, seed: int) -> Figures:
    """Error of retrained models on the hardest, a random and the easiest set, and on the rows of the lowest loss."""
    pool = pool_of(spec("digits-worst").but(recipe={"epochs": EPOCHS}), seed, 0)
    start = Problem(pool.trainer.original(pool.train, seed), task=pool.trainer.task, train=pool.train)
    choose = method()
    worst, easiest = choose(pool, False), choose(pool, True)
    sets = {"worst": worst, "random": draw(pool.train, COUNT, seed), "easiest": easiest,
            "lowest_loss": by_loss(pool, start)}  # fmt: skip
    never = {name: retrained(pool, ids) for name, ids in sets.items()}
    tests = [never[name].test for name in ("worst", "random", "easiest")]
    return {
        **{name: found.error for name, found in never.items()},
        **{f"test_{name}": found.test for name, found in never.items()},
        "test_spread": max(tests) - min(tests),
        "shared_with_lowest_loss": float(np.isin(worst, sets["lowest_loss"]).mean()),
    }


CLAIM = Claim(
    says="Of forget sets of a tenth of the rows, the one that the bi-level search finds is the one a retrained model "
    "errs on least, and the one that the reversed search finds the one it errs on most, at nearly the same test "
    "accuracy. Also shown: the obvious choice, rows of the lowest loss at the start.",
    trained="digits, 1,200 rows, MLP 64-256-64-10, 15 epochs; 120 rows go",
    method=searched,
    controls={"random rows in place of the search": drawn},
    measure=measure,
    holds=("worst < random", "random < easiest", "worst <= 0.5 * random", "test_spread <= 0.01"),
    tolerance=0.05,
)
