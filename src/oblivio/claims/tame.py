"""TAME: a jump of the loss tells the tasks apart, and a selector sends test rows to the right expert."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.continual import SPLIT, course, joint, split_digits
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.modules.experts import Experts

HIDDEN = (50, 50)


def naive(**settings: Any) -> Stage:
    """One network, and nothing against forgetting."""
    return methods.naive(epochs=settings["epochs"], batch=16)


def deaf(**settings: Any) -> Stage:
    """The method with a threshold that no loss reaches: one expert learns everything."""
    return methods.tame(deviations=1e9, **settings)


def unrouted(**settings: Any) -> Stage:
    """The method with a selector that has hardly been trained."""
    return methods.tame(selector_steps=1, selector_lr=1e-6, **settings)


@cache
def lines(seed: int) -> tuple[float, float]:
    """Average accuracy of naive fine-tuning, and of a model that sees all tasks at once."""
    stream, plan = split_digits("domain", seed), naive(epochs=20)
    return course(plan, stream, seed, hidden=HIDDEN).acc, joint(plan, stream, seed, hidden=HIDDEN)


class Watched:
    """Which expert learned the batches of each task; the tasks are read here alone, never by the method."""

    def __init__(self) -> None:
        self.count: dict[int, Counter[int]] = {}

    def __call__(self, run: Any, stage: Any, step: Step) -> None:
        if "new" in stage.loss.reads:
            task = int(step.drawn("new")["task"][0])
            self.count.setdefault(task, Counter())[getattr(step.problem.model, "active", 0)] += 1

    @property
    def right(self) -> float:
        """The share of batches that went to the expert which learned most of their task."""
        batches = sum(sum(each.values()) for each in self.count.values())
        return sum(max(each.values()) for each in self.count.values()) / batches


def measure(method: Method, seed: int) -> Figures:
    """The stream, and then its first task again."""
    stream, watched = split_digits("domain", seed), Watched()
    done = course(method(epochs=20), stream, seed, hidden=HIDDEN, watch=[watched])
    acc, experts = done.acc, _experts(done.learner.model)
    done.learner.learn(stream.train[0])
    back = getattr(done.learner.model, "active", 0) == 0 and _experts(done.learner.model) == experts
    lower, upper = lines(seed)
    lines_of = {"naive": lower, "joint": upper}
    return {"acc": acc, "experts": experts, "right": watched.right, "reused": float(back), **lines_of}


def _experts(model: Any) -> int:
    return len(model.experts) if isinstance(model, Experts) else 1


CLAIM = Claim(
    says="Of a stream of five tasks without boundaries or task ids, about as many experts are made; accuracy without "
    "task ids is above naive fine-tuning's; when the first task comes back, the first expert takes it again.",
    trained=SPLIT.replace("100-100-10", "50-50-2") + "; labels are places of classes in their task, 20 epochs each",
    method=methods.tame,
    controls={
        "naive fine-tuning": naive,
        "a threshold that no loss reaches": deaf,
        "a selector that was not trained": unrouted,
    },
    measure=measure,
    holds=["acc >= 0.92", "acc >= naive + 0.1"],
    always=["4 <= experts <= 6", "reused == 1"],
)  # fmt: skip
