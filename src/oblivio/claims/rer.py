"""RER: replay whose pairs of rows are weighed by a network that looks a step ahead forgets less."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.continual import SPLIT, Course, course, split_digits
from oblivio.core.plan import Cycle, Stage
from oblivio.methods.pieces.rer import related

SETTINGS: dict[str, Any] = {"batch": 16, "replay": 16, "epochs": 20, "lr": 0.1}
SIZES = (20, 50)


def relational(buffer: int) -> Stage:
    """Replay with the piece on it."""
    plan: Stage = methods.rer(every=2)(methods.er(**SETTINGS, buffer=buffer))
    return plan


def without(buffer: int) -> Stage:
    """Replay without it, at the same place of the plan: it draws the same rows and stores the same."""
    plan: Any = relational(buffer)
    (cycle,) = (stage for stage in plan.stages if isinstance(stage, Cycle))
    main: Any = cycle.stages[0]
    (weighed,) = (term for _, term in main.loss.summands if isinstance(term, related))
    cycle.stages, main.loss = [main], sum(weighed.terms)
    return plan


@cache
def ended(method: Method, buffer: int, seed: int) -> Course:
    """After the stream."""
    return course(method(buffer), split_digits("class", seed), seed)


def weights(done: Course) -> Figures:
    """What the network gives the new and the stored row of a pair, with a loss of 1 and outputs of length 10 each."""
    with torch.no_grad():
        new, stored = done.learner.problem.nets["weigher"](torch.ones(1, 2), torch.full((1, 2), 10.0))[0].tolist()
    return {"weight_new": new, "weight_stored": stored}


def measure(method: Method, seed: int) -> Figures:
    """Accuracy and forgetting at the end of the stream for both sizes of the store."""
    figures: Figures = {}
    for size in SIZES:
        done = {"er": ended(without, size, seed), "rer": ended(method, size, seed)}
        figures |= {f"{n}_{size}{part}": v for n, c in done.items() for part, v in (("", c.acc), ("_fm", c.forgetting))}
    return {**figures, **weights(done["rer"])}


CLAIM = Claim(
    says="With 20 stored rows replay with the piece is more accurate than without, and it forgets less with 20 and "
    "with 50.",
    trained=f"{SPLIT}; 20 epochs, batches of 16 new and 16 stored rows, SGD 0.1; the weigher learns every second step",
    method=relational,
    controls={"replay without the piece": without},
    measure=measure,
    holds=("rer_20 >= er_20 + 0.01", "rer_20_fm < er_20_fm", "rer_50_fm < er_50_fm"),
)
