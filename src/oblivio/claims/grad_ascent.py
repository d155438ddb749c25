"""Gradient ascent: it erases quickly, and destroys the model on the way. Memorised wrong labels."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import ROWS, Make, chance, first, likelihood, memorised, nothing, unstopped

STEPS, PER_EPOCH = 60, 2  # an epoch over the rows that go is two batches of 64

TASK = Changed(
    "model and rows", "tofu_mini: facts in a small language model", "digits and a classifier",
    "no language model is there yet; likelihood is the mean probability of a row's own label",
)  # fmt: skip


def floor(card: str) -> Changed:
    """Why a threshold of the card is counted from chance."""
    return Changed(
        f"likelihoods near 0 ({card})", "as they are", "above chance, which is what the best constant answer scores",
        "a classifier that knows nothing gives ten classes a tenth each, where a vocabulary leaves next to nothing",
    )  # fmt: skip


def claim(trained: str, problem: Make, lr: float, **facts: Any) -> Claim:
    """The claim on one kind of request; ``facts`` are other fields of it."""

    def measure(method: Method, seed: int) -> Figures:
        case = problem(seed)
        plan = unstopped(method(lr=lr, epochs=STEPS / PER_EPOCH))
        path = case.path(plan, forget=likelihood("forget"), retain=likelihood("retain"))
        crossing = first(path, "forget", 0.25)
        return {
            "chance": chance(case.start),
            "before": path[0]["forget"],
            "before_retain": path[0]["retain"],
            "retrained": likelihood("forget")(case.retrained),
            "retrained_retain": likelihood("retain")(case.retrained),
            "crossing": crossing["forget"],
            "crossing_retain": crossing["retain"],
            "end": path[-1]["forget"],
            "end_retain": path[-1]["retain"],
        }

    return Claim(
        says="After 60 steps the likelihood of forgotten and of retained rows is gone; already where that of forgotten "
        "rows first falls to 0.25 (the crossing), retained rows have lost.",
        trained=trained,
        method=methods.grad_ascent,
        controls={"the method as a no-op": nothing},
        measure=measure,
        holds=("end <= chance + 0.05", "end_retain <= chance + 0.05", "crossing_retain < 0.85"),
        changed=(
            TASK,
            floor("0.05"),
            Changed("rate", "not given", f"{lr:g}, with the shipped clip",
                    "the smallest of 1, 2 and 5 times 0.001, 0.01 whose mean over seeds 100 to 102 meets both ends"),
        ),
        **facts,
    )  # fmt: skip


CLAIM = claim(ROWS, memorised, lr=0.005)
