"""L-CODEC: Newton steps on the few units that a row's loss depends on, against as many at random, and all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
import torch

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import digits, mislabelled, nothing
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem, rng
from oblivio.core.run import Run
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.jobs.cache import trained
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.methods.unlearning.curvature.lcodec import selected, sequential
from oblivio.modules.units import Unit, activations
from oblivio.networks import Architecture

WRONG, GONE = 60, 20  # labels made wrong, and of these rows the number that goes
GENTLE = 3.0  # a lam whose steps are at most 0.3 long
SETTINGS = {"copies": 150, "lam": 0.1, "skip": 10.0, "fallback": True}
SMALL = Network(Architecture("mlp", (1, 8, 8), 10, {"hidden": [48]}))


@dataclass(frozen=True)
class Requests:
    """A trained problem, the rows that go one after another, and a model trained without them."""

    start: Problem
    rows: list[Source]
    retrained: Problem


@cache
def requests(seed: int) -> Requests:
    """60 labels are wrong and memorised in 150 epochs; 20 of these rows go."""
    rows, wrong = digits().train, np.random.default_rng(mix(seed, "wrong")).permutation(len(digits().train))[:WRONG]
    goes = np.zeros(len(rows), dtype=bool)
    goes[wrong] = True
    train = mislabelled(rows, goes, seed)
    keep = np.setdiff1d(np.arange(len(rows)), wrong[:GONE])
    recipe = Recipe(optimiser="adam", lr=1e-3, schedule="constant", epochs=150, batch=64)
    retain, forget = train.take(keep), train.take(wrong[:GONE])
    nets = [trained(recipe, SMALL, of, seed, task="classification").module for of in (train, retain)]
    start, retrained = (
        Problem(net, task="classification", seed=seed, forget=forget, retain=retain, test=digits().test) for net in nets
    )
    return Requests(start, [forget.take([i]) for i in range(GONE)], retrained)


def loss(problem: Problem) -> float:
    """The mean loss of what goes."""
    with torch.no_grad():
        return float(problem.tabulate("forget", lambda nets, b: problem.task.each(nets["model"](b["x"]), b)).mean())


def after(case: Requests, plan: Stage) -> tuple[Problem, float]:
    """The problem after one request for each row, and the share of rows whose own loss rose at their request."""
    problem, risen = case.start.copy(), []
    for row in case.rows:
        problem.sources["forget"] = problem._named("forget", row)
        before = loss(problem)
        Run(plan, problem).go()
        risen.append(loss(problem) > before)
    return problem, fmean(risen)


@edit
def elsewhere(problem: Problem, copies: int, lam: float, every: bool) -> None:
    """The same step on the weights into as many units drawn at random, or into all."""

    def choose(problem: Problem, row: Source) -> list[Unit]:
        _, _, units = activations(problem, row.batch(torch.zeros(1, dtype=torch.long)))
        if every:
            return units
        order = torch.randperm(len(units), generator=rng(problem, "random units", str(row.ids[0])))
        return [units[i] for i in order[: len(selected(problem, row, copies, 0.1))].tolist()]

    sequential(problem, choose, None, lam, 0.0, 10.0)


def random(copies: int, lam: float, **settings: Any) -> Stage:
    """As many units, at random."""
    return elsewhere(copies, lam, every=False)


def measure(method: Method, seed: int) -> Figures:
    """Test accuracy after 20 requests, one row each, and the share of rows whose loss rose at their request."""
    case = requests(seed)
    done, risen = after(case, method(**SETTINGS))
    at_random, _ = after(case, elsewhere(150, 0.1, every=False))
    everywhere, _ = after(case, elsewhere(150, 0.1, every=True))
    gentle, risen_gentle = after(case, method(**{**SETTINGS, "lam": GENTLE}))
    return {
        "before": case.start.score("test"),
        "retrained": case.retrained.score("test"),
        "lcodec": done.score("test"),
        "random": at_random.score("test"),
        "every": everywhere.score("test"),
        "risen": risen,
        "gentle": gentle.score("test"),
        "gentle_risen": risen_gentle,
        "units": fmean(len(selected(case.start, row, 150, 0.1)) for row in case.rows),
    }


def brief(method: Method, seed: int) -> Figures:
    """Of the method alone."""
    case = requests(seed)
    done, risen = after(case, method(**SETTINGS))
    return {"before": case.start.score("test"), "lcodec": done.score("test"), "risen": risen}


CLAIM = Claim(
    says="After 20 removals of a mislabelled row, each by a Newton step on the weights into the units that its loss "
    "depends on, each row's loss has risen and test accuracy has stayed; after the same step on as many units chosen "
    "at random it has not.",
    trained="digits with 60 of 1,200 labels wrong and memorised, MLP 64-48-10; 20 of these rows go one by one",
    method=methods.lcodec,
    controls={"the method as a no-op": nothing, "as many units at random": random},
    measure=measure,
    fast=brief,
    holds=("abs(lcodec - before) <= 0.02", "random <= lcodec - 0.2"),
    always=("risen == 1",),
    because={
        "abs(lcodec - before) <= 0.02": "The step of the fallback does not shrink with the number of rows: its norm is "
        "up to 1 / (2 sqrt(lam)), 1.6 here, on each of 20 requests, and 4 to 5 units are found for each where the "
        "card's pilot had 2.5. With steps of 0.3 at most (lam 3) less than a third of the loss of accuracy is left, "
        "and every row's loss still rises (gentle, gentle_risen)",
    },
    changed=(
        Changed("taking back steps that harm", "0.05", "never", "it would hide what the random units do"),
    ),
)  # fmt: skip
