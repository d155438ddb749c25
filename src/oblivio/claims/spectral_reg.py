"""Spectral regularisation: a network goes on learning random labels with Adam where all its units die without."""

from __future__ import annotations

from typing import Any

from oblivio import methods, terms
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.random_labels import STREAM, ends, path, plain
from oblivio.core.opt import adam
from oblivio.core.plan import Stage

TASKS, EPOCHS = 100, 30


def alone(**settings: Any) -> Stage:
    """Training on each task in turn, and nothing else."""
    return plain(EPOCHS, adam(0.01, carry=True))


def spectral(**settings: Any) -> Stage:
    """The same with the piece on it."""
    plan: Stage = methods.spectral_reg(**settings)(alone())
    return plan


def shrunk(**settings: Any) -> Stage:
    """L2 with the same weight in its place."""
    return alone().but(loss=lambda total: total + settings["lam"] * terms.l2())


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on the rows of a task when it has been learned: the means of the first and of the last ten tasks."""
    plans = {"none": alone(), "l2": shrunk(lam=1e-3), "spectral": method(lam=1e-3)}
    return {k: v for name, plan in plans.items() for k, v in ends(name, path(plan, seed, TASKS)).items()}


CLAIM = Claim(
    says="Over 100 tasks of random labels Adam alone ends at chance; with L2 it learns the last tasks badly; with the "
    "greatest singular value of each layer held near 1 it learns the last as well as the first.",
    trained=f"{STREAM}; {EPOCHS} epochs, Adam 0.01; weight of the penalties 1e-3, sums over the weights",
    method=spectral,
    controls={"training without the piece": alone, "L2 with the same weight": shrunk},
    measure=measure,
    holds=(
        "spectral_last >= 0.9",
        "spectral_last >= l2_last + 0.2",
        "none_first - none_last >= 0.2",
    ),
    changed=(
        Changed("arms", "L2-init 1e-3, Wasserstein 1e-3 and spectral 1e-2 beside them", "left out",
                "none of the conditions is about them; they would double the time"),
    ),
)  # fmt: skip
