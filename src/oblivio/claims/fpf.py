"""FPF: repairing the head alone on a few stored rows brings back most of what plain training lost."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.continual import SPLIT, Course, course, split_digits
from oblivio.core.plan import Stage
from oblivio.methods.pieces.fpf import MODULES

SETTINGS: dict[str, Any] = {"batch": 10, "epochs": 20, "lr": 0.05}
STORED = 100


def hosts() -> dict[str, Stage]:
    """The plans that are repaired."""
    return {"naive": methods.naive(**SETTINGS), "er": methods.er(**SETTINGS, buffer=STORED, replay=10)}


def repaired(plan: Stage, k: int = 0) -> Stage:
    """A plan with the piece on it."""
    made: Stage = methods.fpf(k=k, buffer=STORED)(plan)
    return made


def unrepaired(plan: Stage, k: int = 0) -> Stage:
    """The plan alone."""
    return plan


def share(done: Course) -> float:
    """Which part of the weights a repair may move."""
    problem = done.learner.problem
    moved = MODULES["head and norms"].select(problem)
    sizes = {n: w.numel() for n, w in problem.weights("model.*").items()}
    return sum(sizes[n] for n in moved) / sum(sizes.values())


KNOWN: dict[tuple[str, int], Course] = {}  # a control runs the same plans again


def ended(plan: Stage, seed: int) -> Course:
    """After the stream."""
    key = repr(plan), seed
    if key not in KNOWN:
        KNOWN[key] = course(plan, split_digits("class", seed), seed)
    return KNOWN[key]


def measure(method: Method, seed: int) -> Figures:
    """Accuracy at the end of the stream, with and without repair."""
    plans = hosts()
    plans |= {f"{name}_fpf": method(plan) for name, plan in hosts().items()}
    plans["naive_k_fpf"] = method(hosts()["naive"], 1)
    done = {name: ended(plan, seed) for name, plan in plans.items()}
    return {**{name: c.acc for name, c in done.items()}, "share": share(done["naive_fpf"])}


CLAIM = Claim(
    says="Trained on new rows alone a network keeps the last experience; with its head repaired once, at the end, on "
    "100 stored rows it knows most of all classes. Experience replay gains too. A repair moves under a tenth of the "
    "weights.",
    trained=f"{SPLIT}; 20 epochs in batches of 10, {STORED} rows stored, SGD 0.05; 300 steps of repair",
    method=repaired,
    controls={"no repair": unrepaired},
    measure=measure,
    holds=("naive_fpf >= 0.6", "er_fpf >= er + 0.01", "share < 0.1"),
    changed=(
        Changed("k-FPF", "5 repairs in the stream", "the same, one after every experience",
                "a learner does not know how long the stream is"),
    ),
)  # fmt: skip
