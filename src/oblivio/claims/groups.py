"""Digits of which half are transposed: four groups of target and attribute, one of which loses most of its rows.

The target is whether the digit is 5 or more, the attribute whether the image is transposed; ``group`` is
2 * target + attribute. 1,200 training rows, and all 597 test rows both ways; an MLP 64-256-64-2, trained by Adam with
rate 1e-3 for 60 epochs in batches of 64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from oblivio.claims.claim import Figures
from oblivio.claims.problems import Case, digits
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.edits import reset
from oblivio.jobs.cache import trained
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.networks import Architecture
from oblivio.sources import Tensors
from oblivio.terms import fit

SHARE = 0.9  # of a group that goes
EPOCHS, LR = 60, 1e-3
TRAINED = f"digits, below 5 or not, a half of them transposed; {SHARE:.0%} of one of the four groups go"
NETWORK = Network(Architecture("mlp", (1, 8, 8), 2, {"hidden": [256, 64]}))


def robbed(seed: int, gone: int = 0) -> Case:
    """Nine tenths of the group ``gone`` go; nothing is retrained yet (``retrained`` is the start too)."""
    rows = _turned(digits().train, np.random.default_rng(mix(seed, "turned")).random(len(digits().train)) < 0.5)
    group = column(rows, "group")
    mine = np.random.default_rng(mix(seed, "gone")).permutation(np.flatnonzero(group == gone))
    goes = np.isin(np.arange(len(rows)), mine[: round(SHARE * len(mine))])
    test = digits().test
    both = [_turned(test, np.full(len(test), turned)) for turned in (False, True)]
    test = Tensors({name: np.concatenate([column(each, name) for each in both]) for name in ("x", "y", "group")})
    recipe = Recipe(optimiser="adam", lr=LR, schedule="constant", epochs=EPOCHS, batch=64)
    model = trained(recipe, NETWORK, rows, seed, task="classification").module
    start = Problem(model, task="classification", seed=seed, forget=rows.take(goes), retain=rows.take(~goes), test=test)
    return Case(start, start)


def _turned(rows: Source, turned: Any) -> Tensors:
    """The rows, transposed where ``turned``, with the target and the group."""
    x, y = column(rows, "x").copy(), (column(rows, "y") >= 5).astype(np.int64)
    x[turned] = x[turned].swapaxes(-1, -2)
    return Tensors({"x": x, "y": y, "group": 2 * y + turned}, ids=rows.ids)


def retraining(**settings: Any) -> Stage:
    """Training from other random weights, as the original was trained."""
    return reset() >> Descent(fit("retain"), opt=adam(LR), epochs=EPOCHS)


def by_group(problem: Problem, on: str = "test") -> dict[int, float]:
    """Accuracy on the rows of each group."""
    with torch.no_grad():
        right = problem.tabulate(on, lambda nets, b: problem.task.quality(problem.served(nets, b), b))
    group = torch.from_numpy(column(problem.source(on), "group"))
    return {int(g): float(right[group == g].double().mean()) for g in group.unique()}


def odds(problem: Problem) -> float:
    """Equalised odds: the difference of the shares of right test rows between the attributes, mean over targets."""
    right = by_group(problem)
    return sum(abs(right[2 * target] - right[2 * target + 1]) for target in (0, 1)) / 2


def figures(name: str, problem: Problem, gone: int = 0) -> Figures:
    """Accuracy on the robbed group's test rows (GA), on the other groups', equalised odds, accuracy on forget."""
    right = by_group(problem)
    return {
        f"{name}_group": right[gone],
        f"{name}_others": sum(value for group, value in right.items() if group != gone) / 3,
        f"{name}_odds": odds(problem),
        f"{name}_forget": problem.score("forget"),
    }
