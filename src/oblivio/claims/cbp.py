"""CBP: on a stream of random labels, backprop loses the ability to learn and continual backprop keeps it."""

from __future__ import annotations

from functools import cache
from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.random_labels import STREAM, afresh, ends, path, plain
from oblivio.core.opt import Opt, adam, sgd
from oblivio.core.plan import Stage

TASKS, EPOCHS = 60, 20


def rate(kind: str) -> Opt:
    """The two optimisers of the claim; the moments of Adam go on from task to task."""
    return sgd(0.1) if kind == "sgd" else adam(0.005, carry=True)


def backprop(kind: str, **settings: Any) -> Stage:
    """Training on each task in turn, and nothing else."""
    return plain(EPOCHS, rate(kind))


def renewing(kind: str, **settings: Any) -> Stage:
    """The same with the piece on it."""
    plan: Stage = methods.cbp(**settings)(backprop(kind))
    return plan


@cache
def fresh(seed: int) -> Figures:
    """A new network for every task."""
    return ends("fresh", afresh(backprop("sgd"), seed, TASKS))


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on the rows of a task when it has been learned: the means of the first and of the last ten tasks."""
    figures = dict(fresh(seed))
    for name, kind in {"backprop": "sgd", "adam": "adam"}.items():
        figures |= ends(name, path(backprop(kind), seed, TASKS))
    for name, kind in {"cbp": "sgd", "adam_cbp": "adam"}.items():
        figures |= ends(name, path(method(kind, rho=1e-3, maturity=100), seed, TASKS))
    return figures


CLAIM = Claim(
    says="Over 60 tasks that have nothing in common backprop with SGD learns each less well than the one before, until "
    "it learns hardly anything; with one unit in a thousand old ones renewed a step, it learns the last tasks no less "
    "than the first. fresh is a new network for every task. With Adam renewal helps and is not enough.",
    trained=f"{STREAM}; {EPOCHS} epochs, SGD 0.1 or Adam 0.005",
    method=renewing,
    controls={"backprop without the piece": backprop},
    measure=measure,
    holds=(
        "backprop_first - backprop_last >= 0.2",
        "cbp_last >= backprop_last + 0.2",
        "cbp_last >= cbp_first",
    ),
    changed=(
        Changed("data", "binary ImageNet, 2000 tasks", "the card's check on digits", "it takes a minute a seed"),
        Changed("cbp_last >= cbp_first", "not among the conditions of the check", "a condition",
                "it is the paper's claim: at or above the start"),
    ),
)  # fmt: skip
