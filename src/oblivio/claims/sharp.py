"""SHARP: a sparse network that is rewired, frozen bit by bit, and replays activations of the last classes alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.continual import SPLIT, Course, course, split_digits
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.methods.continual.structure.sharp import Ages, Latents
from oblivio.modules.neighbours import Neighbours

HIDDEN = (200, 200, 100)
BATCH = 32
ROW = 64 * 4 + 2 * 8  # bytes of a stored digit: pixels, class and id


class Thawed(Ages):
    """No unit is ever frozen."""

    def frozen(self, name: str) -> Tensor:
        age: Tensor = self.state["ages"][name]
        return torch.zeros_like(age, dtype=torch.bool)


def thawed(**settings: Any) -> Stage:
    """The method whose units go on moving; an epoch a phase, since that is enough to see it."""
    plan = methods.sharp(E=1, **settings)
    for _, part in walk(plan):
        if isinstance(part, Ages):
            part.__class__ = Thawed
    return plan


def untrained(**settings: Any) -> Stage:
    """The method whose features are never trained."""
    return methods.sharp(E=1, lr=1e-9, **settings)


def naive(**settings: Any) -> Stage:
    """Fine-tuning without any of it, for as many epochs."""
    return methods.naive(epochs=30, batch=BATCH)


@cache
def lower(seed: int) -> float:
    """Average accuracy of naive fine-tuning."""
    return course(naive(), split_digits("class", seed), seed, hidden=HIDDEN).acc


@cache
def replayed(seed: int, size: int) -> float:
    """Average accuracy of experience replay with so many rows."""
    plan = methods.er(buffer=size, epochs=30, batch=BATCH)
    return course(plan, split_digits("class", seed), seed, hidden=HIDDEN).acc


@cache
def neighbours(seed: int) -> float:
    """Average accuracy of the vote among nearly all units of a network that was never trained."""
    plan = methods.sharp(P=1, E=1, lr=1e-9, s=0, batch=BATCH)
    return course(plan, split_digits("class", seed), seed, hidden=HIDDEN).acc


class Watched:
    """Of every phase how far the density is from the start's, and connections from plastic into stable units."""

    def __init__(self) -> None:
        self.off, self.feeding = 0.0, 0

    def __call__(self, run: Any, stage: Any, step: Step) -> None:
        if step.t or not isinstance(step.problem.model, Neighbours):
            return
        state = next(part for part in run.parts.values() if isinstance(part, Ages)).state
        masks, ages = list(state["masks"].values()), list(state["ages"].values())
        self.off = max(self.off, *(abs(float(mask.float().mean()) - 0.4) for mask in masks))
        for mask, before, after in zip(masks[1:], ages, ages[1:], strict=False):
            self.feeding += int(mask[after > 0][:, before == 0].sum())


def followed(plan: Stage, seed: int, watched: Watched) -> tuple[Course, bool]:
    """The whole stream; whether what early units answer to test rows kept its bits from the day they were stable."""
    stream = split_digits("class", seed)
    done = course(plan, stream, seed, hidden=HIDDEN, experiences=stream.train[:1], watch=[watched])
    x = torch.cat([batch["x"] for batch in stream.held.batches(1024)])
    before, same = _stable(done, x), True
    for experience in stream.train[1:]:
        done.history.record(done.learner.learn(experience, watch=[watched]))
        now = _stable(done, x)
        same = same and all(torch.equal(now[unit], values) for unit, values in before.items())
        before = now
    return done, same


def _stable(done: Course, x: Tensor) -> dict[int, Tensor]:
    """What every mature unit of the first hidden layer answers; nothing of a network without ages."""
    model = done.learner.model
    if not isinstance(model, Neighbours):
        return {}
    with torch.no_grad():
        name, values = next(iter(model.answers(x).items()))
    ages = next(part for part in done.learner.parts.values() if isinstance(part, Ages)).state["ages"][name]
    return {unit: values[:, unit].clone() for unit in (ages > 1).nonzero().flatten().tolist()}


def kept(done: Course) -> int:
    """Bytes of stored activations and vectors."""
    latents = [part.bytes for part in done.learner.parts.values() if isinstance(part, Latents)]
    vectors = [v for n, v in done.learner.model.named_buffers() if n.endswith("vectors")]
    return sum(latents) + sum(v.numel() * v.element_size() for v in vectors)


def measure(method: Method, seed: int) -> Figures:
    """The stream with replay of one experience and of none; naive fine-tuning and replay of rows in as many bytes."""
    watched = Watched()
    done, same = followed(method(batch=BATCH, replay=BATCH), seed, watched)
    stream = split_digits("class", seed)
    none = course(method(batch=BATCH, replay=BATCH, s=0), stream, seed, hidden=HIDDEN)
    rows = max(kept(done) // ROW, 1)
    return {
        "acc": done.acc, "forgetting": done.forgetting, "same_bits": float(same), "density_off": watched.off,
        "feeding": watched.feeding, "no_replay": none.acc, "naive": lower(seed), "neighbours": neighbours(seed),
        "rows_of_equal_bytes": rows, "er_of_equal_bytes": replayed(seed, rows),
    }  # fmt: skip


CLAIM = Claim(
    says="In the scenario 'class' accuracy is far above naive fine-tuning's, and not less with the activations of the "
    "last experience than without; density stays, no plastic unit feeds a stable one, and what a frozen unit of the "
    "first hidden layer answers keeps its bits. Replay of rows in as many bytes is measured beside it, and the vote "
    "among features that were never trained, which is far above naive fine-tuning by itself.",
    trained=SPLIT.replace("100-100", "200-200-100"),
    method=methods.sharp,
    controls={
        "naive fine-tuning": naive, "units that are never frozen": thawed, "features that were not trained": untrained,
    },
    measure=measure,
    holds=["acc >= naive + 0.4", "acc >= no_replay", "acc >= neighbours"],
    always=["density_off <= 0.01", "feeding == 0", "same_bits == 1"],
    changed=(
        Changed("rows a step", "256 and 256", "32 and 32", "with 256 an epoch of 240 rows is one step"),
        Changed("neighbours among features that were never trained", "not measured", "not above the method",
                "they alone meet the card's condition on accuracy"),
    ),
)  # fmt: skip
