"""What a request costs with ssd, against training again without the rows."""

from __future__ import annotations

import copy
from typing import Any

from oblivio import methods, networks
from oblivio.bench.images import images
from oblivio.bench.row import Row
from oblivio.bench.timing import REPEATS, by_turns, ratios
from oblivio.core.importance import fisher
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.jobs.recipe import shipped
from oblivio.jobs.training import fitted

SHARE = 0.1  # of an epoch is measured; a training has the recipe's epochs, all alike
BLOCKS = 1  # the first request takes seconds


def rows(repeats: int = REPEATS) -> list[Row]:
    """A class of fashion_mnist with small-cnn: ssd with the stored importance of all rows, and the first request."""
    data, recipe = images("fashion_mnist"), shipped("small-cnn")
    model, gone = networks.build("small-cnn", (1, 28, 28), 10), data.y == 3
    sources: dict[str, Any] = {"forget": (data.x[gone], data.y[gone]), "retain": (data.x[~gone], data.y[~gone])}
    retain = Problem(model, task="classification", **sources).source("retain")
    stored = fisher(Problem(model, task="classification", train=(data.x, data.y)), "train")

    def request(**records: object) -> None:
        problem = Problem(copy.deepcopy(model), task="classification", records=records, **sources)
        Run(methods.ssd(), problem).go()

    def train() -> None:
        fitted(copy.deepcopy(model), recipe.but(epochs=SHARE), retain, 0, task="classification")

    work = {"later": lambda: request(importance=stored), "first": request, "train": train}
    times = by_turns(work, repeats, BLOCKS)
    training = [seconds * float(recipe.epochs) / SHARE for seconds in times["train"]]
    note = f"{data.note}class 3, {int(gone.sum()):,} of {len(data.y):,} rows; a training takes {min(training):,.0f} s, "
    note += f"extrapolated from {SHARE:g} of its {recipe.epochs:g} epochs"
    return [
        Row("ssd over retraining, importance of all rows stored", 1 / 30, ratios(times["later"], training), note),
        Row("ssd over retraining, first request with that importance", 1 / 6, ratios(times["first"], training), note),
    ]
