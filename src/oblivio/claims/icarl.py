"""iCaRL: the nearest mean of exemplars answers where the same network's own outputs do not."""

from __future__ import annotations

from typing import Any

import torch

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.continual import SPLIT, Course, course, split_digits
from oblivio.claims.lines import lines, naive
from oblivio.core.plan import Plan, Stage
from oblivio.data.streams.experience import Stream

SETTINGS = {"lr": 0.2, "batch": 10, "epochs": 20}


def measure(method: Method, seed: int) -> Figures:
    """Accuracy at the end by the nearest mean and by the linear head of the same network."""
    stream = split_digits("class", seed)
    done = course(method(buffer=100, **SETTINGS), stream, seed)
    return {**lines(("class",), seed), "nearest_mean": done.acc, "linear_head": by_head(done, stream)}


def by_head(done: Course, stream: Stream) -> float:
    """Average accuracy over the tasks of what the network itself says, among the classes that count."""
    problem = done.learner.problem
    with torch.no_grad():
        right = problem.tabulate(stream.held, lambda nets, batch: problem.task.quality(
            problem.task.view(problem.task.forward(nets, "model", batch), batch, "served"), batch))  # fmt: skip
    return sum(float(right[part].mean()) for part in stream.slices) / len(stream.slices)


def unserved(**settings: Any) -> Stage:
    """Its training alone: served is what the network says."""
    plan = methods.icarl(**settings)
    assert isinstance(plan, Plan)
    return Plan(plan.stages[1:2])


CLAIM = Claim(
    says="With ten exemplars a class the nearest mean of their features reaches 0.70 over five pairs of digits, and is "
    "far better than the linear head of the same network, which prefers the classes it saw last.",
    trained=f"{SPLIT}; SGD at rate 0.2, batch 10, 20 epochs over new rows and exemplars together",
    method=methods.icarl,
    controls={"the same training, served by the linear head": unserved, "naive training": naive},
    measure=measure,
    holds=("nearest_mean >= linear_head + 0.15", "nearest_mean >= 0.70", "nearest_mean >= naive_class + 0.5"),
    changed=(
        Changed("above naive", "measured: 0.826 against 0.20", "a condition: 0.5 above", "the claim names fine-tuning"),
        Changed("K = 50, also with random exemplars", "measured: 0.800 and 0.808", "not measured",
                "nothing is asked of them"),
        Changed("prefix property", "part of the check", "a test of the library: tests/test_prototypes.py",
                "it needs no training"),
    ),
)  # fmt: skip
