"""The streams that claims of continual learning share, and what is measured on them.

All are digits, 1,200 rows to learn from and 597 to test on, and an MLP 64-100-100-10, unless said otherwise.
A seed gives the order of the classes (or the permutations) and, apart from it, the weights and the order of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from oblivio import data
from oblivio.core.plan import Stage
from oblivio.core.run import Watch
from oblivio.core.seeds import mix
from oblivio.data.history import History
from oblivio.data.streams.experience import Experience, Stream
from oblivio.learners.learner import Learner
from oblivio.networks import build

SPLIT = "digits in five tasks of two classes, in an order of classes that each seed draws; MLP 64-100-100-10"
PERMUTED = "digits in five tasks, each with its own order of the pixels; ten outputs that all share; MLP 64-100-100-10"
HIDDEN = (100, 100)


@cache
def split_digits(scenario: str = "class", seed: int = 0, tasks: int = 5, valid: float = 0.0) -> Stream:
    """Two classes an experience, in an order of classes that the seed draws."""
    return data.split("digits", tasks=tasks, scenario=scenario, order=seed, valid=valid)


@cache
def permuted_digits(seed: int = 0, tasks: int = 5, valid: float = 0.0) -> Stream:
    """All classes in every experience, each with its own order of the pixels; the first as they are."""
    return data.permuted("digits", tasks=tasks, order=seed, valid=valid)


@dataclass(frozen=True)
class Course:
    """A learner at the end of a stream, and what it was at the end of each experience."""

    learner: Learner
    history: History

    @property
    def acc(self) -> float:
        """Average accuracy over the tasks after the last one."""
        return self.history.metrics()["acc"]

    @property
    def forgetting(self) -> float:
        """How much of the best accuracy on each earlier task is lost at the end, on average."""
        return self.history.metrics()["fm"]


def network(stream: Stream, seed: int, hidden: Sequence[int] = HIDDEN) -> nn.Module:
    """An MLP with an output for every class of the stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, "network"))
        return build("mlp", stream.inputs, stream.outputs, hidden=tuple(hidden))


def course(
    plan: Stage,
    stream: Stream,
    seed: int,
    *,
    hidden: Sequence[int] = HIDDEN,
    model: nn.Module | None = None,
    experiences: Sequence[Experience] | None = None,
    watch: Sequence[Watch] = (),
    **options: Any,
) -> Course:
    """Learn a stream (or some experiences) by a plan, evaluated after each; ``options`` are those of ``Learner``."""
    learner = Learner(model or network(stream, seed, hidden), plan, "classification", seed, **options)
    history = History(stream.test)
    for experience in stream.train if experiences is None else experiences:
        learner.learn(experience, watch=watch)
        history.record(learner)
    return Course(learner, history)


def joint(plan: Stage, stream: Stream, seed: int, **options: Any) -> float:
    """Average accuracy where a plan (mostly ``naive``) learns all rows of the stream at once: the upper line."""
    return course(plan, stream, seed, experiences=[stream.joint], **options).acc
