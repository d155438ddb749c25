"""Architecture matters: with the same plain training a wide network forgets less than a narrow or a deep one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.continual import PERMUTED, course, permuted_digits

SHAPES = {"32": (32, 32), "100": (100, 100), "500": (500, 500), "1000": (1000, 1000),
          "one_500": (500,), "four_100": (100, 100, 100, 100)}  # fmt: skip


def given(hidden: Sequence[int]) -> Sequence[int]:
    """The widths that are asked for."""
    return hidden


def one_size(hidden: Sequence[int]) -> Sequence[int]:
    """The same network whatever is asked for."""
    return SHAPES["100"]


@cache
def metrics(hidden: Sequence[int], seed: int) -> Figures:
    """Of one network over the five tasks."""
    plan = methods.naive(lr=0.02, batch=10, epochs=10)
    found: Figures = course(plan, permuted_digits(seed), seed, hidden=hidden).history.metrics()
    return found


def measure(method: Method, seed: int) -> Figures:
    """Average accuracy and forgetting at the end, and accuracy on each task right after it was learned, by shape."""
    words = {"acc": "acc", "fm": "forgotten", "la": "learned"}
    figures: Figures = {}
    for name, hidden in SHAPES.items():
        figures |= {f"{words[k]}_{name}": v for k, v in metrics(method(hidden), seed).items() if k in words}
    return figures


CLAIM = Claim(
    says="The algorithm stays naive fine-tuning and the architecture changes: from two hidden layers of 32 to two of "
    "1000 forgetting falls and learning accuracy does not; one layer of 500 forgets less than two. acc is the average "
    "accuracy at the end, forgotten the mean loss from the best, learned the mean accuracy right after each task.",
    trained=f"{PERMUTED}, but for the widths; SGD 0.02, batch 10, 10 epochs a task",
    method=given,
    controls={"the same network whatever is asked for": one_size},
    measure=measure,
    holds=(
        "forgotten_32 - forgotten_1000 >= 0.06",
        "learned_1000 >= learned_32",
        "forgotten_one_500 < forgotten_500",
    ),
    changed=(
        Changed("nets and data", "CNNs, ResNets, ViTs on Rotated MNIST, Split CIFAR-100 and ImageNet-1K",
                "the card's check: MLPs on permuted digits", "width and depth are what a minute can show"),
        Changed("seeds", "2", "3", "a verdict needs three"),
    ),
)  # fmt: skip
