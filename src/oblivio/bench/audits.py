"""What an audit of two models costs, in forward passes and beside training."""

from __future__ import annotations

import copy
from typing import Any

from oblivio import networks
from oblivio.audits.audit import audit
from oblivio.audits.subjects import Subject
from oblivio.bench.images import images
from oblivio.bench.row import Row
from oblivio.bench.timing import REPEATS, by_turns, ratios
from oblivio.core.problem import Problem
from oblivio.jobs.recipe import shipped
from oblivio.jobs.training import fitted

EPOCHS, PASSES = 3, 3  # that an audit may take
SHARE = 0.1  # of an epoch is measured
TEST = 10_000
BLOCKS = 1


def rows(repeats: int = REPEATS) -> list[Row]:
    """Outcome and original on a class of fashion_mnist with small-cnn, without references and without relearning."""
    data, model = images("fashion_mnist"), networks.build("small-cnn", (1, 28, 28), 10)
    x, y, gone = data.x[:-TEST], data.y[:-TEST], data.y[:-TEST] == 3
    sources: dict[str, Any] = {"forget": (x[gone], y[gone]), "retain": (x[~gone], y[~gone]),
                               "test": (data.x[-TEST:], data.y[-TEST:])}  # fmt: skip
    problem = Problem(model, task="classification", **sources)
    recipe, count = shipped("small-cnn"), [0]

    def look() -> None:
        subjects = [Subject("outcome", "outcome", {"model": copy.deepcopy(model)}),
                    Subject("original", "original", {"model": model})]  # fmt: skip
        audit(problem, subjects, [3], leave_out=["relearning"])

    def train() -> None:
        fitted(copy.deepcopy(model), recipe.but(epochs=SHARE), problem.source("retain"), 0, task="classification")

    counted = model.register_forward_pre_hook(lambda _, inputs: count.__setitem__(0, count[0] + len(inputs[0])))
    look()  # copies of a module have its hooks, so that all of them are counted
    counted.remove()
    times = by_turns({"audit": look, "train": train}, repeats, BLOCKS)
    epochs = [EPOCHS * seconds / SHARE for seconds in times["train"]]
    total = sum(len(source) for source in problem.sources.values())
    note = f"{data.note}two models, {total:,} rows, all probes that need no reference but relearning"
    return [
        Row("forward passes of an audit", PASSES, [count[0] / total], f"{note}; counted by hooks", unit="passes"),
        Row("audit over three epochs of training", 1, ratios(times["audit"], epochs), note),
    ]
