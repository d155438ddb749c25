"""MUFAC and MUCAC: forgetting people where the label is no identity, and NoMUS, one score for use and forgetting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

from oblivio import problems
from oblivio.claims.claim import Claim, Figures
from oblivio.core.problem import Problem
from oblivio.jobs.network import Network
from oblivio.problems.case import Case

SPLITS = 10


def nomus(utility: float, forgetting: float, lam: float = 0.5) -> float:
    """The normalised unlearning score: ``lam`` of it use, the rest forgetting, from 0 to 1.

    Args:
        utility: test accuracy.
        forgetting: distance of the attack's accuracy from one half, 0 to 0.5; see ``distance``.
        lam: weight of the use.

    >>> round(nomus(0.5951, 0.2136), 3)  # of the original model in the paper's table of MUFAC
    0.584
    """
    return lam * utility + (1 - lam) * (1 - 2 * forgetting)


def distance(problem: Problem, members: str = "forget") -> float:
    """How far from one half an attack's accuracy is that tells ``members`` from unseen rows by their loss alone."""
    losses = [_losses(problem, on) for on in (members, "valid")]
    fewest = min(map(len, losses))
    values = np.concatenate([each[:fewest] for each in losses])[:, None]
    labels = np.repeat([1, 0], fewest)
    splits = StratifiedShuffleSplit(SPLITS, random_state=problem.seed)
    return abs(float(cross_val_score(LogisticRegression(), values, labels, cv=splits).mean()) - 0.5)


def _losses(problem: Problem, on: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    with torch.no_grad():
        found = problem.tabulate(on, lambda nets, batch: problem.task.each(problem.served(nets, batch), batch))
    return found.double().numpy()


@dataclass(frozen=True)
class Protocol:
    """Which model counts as retrained, and whose rows the attack is to find."""

    never: Callable[[Case], Problem]
    members: str = "forget"


def whole() -> Protocol:
    """The protocol of the paper."""
    return Protocol(lambda case: case.never())


def not_retrained() -> Protocol:
    """The original passed off as retrained."""
    return Protocol(lambda case: case.start)


def strangers() -> Protocol:
    """The attack on rows of people whom no model ever saw."""
    return Protocol(lambda case: case.never(), "test")


def measure(method: Callable[..., Protocol], seed: int) -> Figures:
    """Test accuracy, distance of the attack from one half, and score: original, retrained and untrained."""
    case, protocol = problems.load("digits-identity", seed, references=1), method()
    models = {"original": case.start, "retrained": protocol.never(case), "untrained": untrained(case)}
    found: Figures = {}
    for name, problem in models.items():
        use, far = problem.score("test"), distance(problem, protocol.members)
        found |= {f"{name}_test": use, f"{name}_attack": far, f"{name}_score": nomus(use, far)}
    return found


def untrained(case: Case) -> Problem:
    """The network with new weights."""
    assert isinstance(case.network, Network)
    there = case.start.copy()
    there.nets["model"] = case.network.build(case.start.source("train"), case.start.seed + 1).eval()
    return there


CLAIM = Claim(
    says="Digits as if of 60 people, each with a pattern and a contrast of their own; 6 people go, and an attack tells "
    "their rows from those of unseen people by the loss. The original is attacked with success, a retrained model less "
    "so (attack: distance of the attack's accuracy from one half), and NoMUS puts the retrained model above the "
    "original, and above an untrained one that no attack finds.",
    trained="digits-identity: MLP 64-256-64-10 overfitted in 100 epochs; 6 of 60 people go",
    method=whole,
    controls={"an attack on people no model saw": strangers, "the original as the retrained model": not_retrained},
    measure=measure,
    holds=(
        "original_attack >= 0.1",
        "original_attack >= retrained_attack + 0.05",
        "retrained_score > original_score",
        "untrained_attack < 0.1",
        "untrained_score < retrained_score",
    ),
)
