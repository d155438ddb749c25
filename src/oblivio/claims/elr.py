"""ELR: with two fifths of the labels wrong, a network with the term learns hardly one of them by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from oblivio import methods, networks
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import digits, mislabelled
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import mix
from oblivio.terms import fit

NOISE, EPOCHS, BATCH = 0.4, 150, 64


def plain(**settings: Any) -> Stage:
    """Training on cross-entropy alone."""
    return Descent(fit("train"), opt=adam(1e-3), epochs=EPOCHS, batch=BATCH)


def guarded(**settings: Any) -> Stage:
    """The same with the piece on it."""
    plan: Stage = methods.elr(**settings)(plain())
    return plan


def start(seed: int) -> Problem:
    """An untrained network; source ``wrong`` holds the rows of ``train`` whose label is wrong, with that label."""
    rows = digits().train
    chosen = np.random.default_rng(mix(seed, "noise")).permutation(len(rows))[: round(NOISE * len(rows))]
    where = np.isin(np.arange(len(rows)), chosen)
    train = mislabelled(rows, where, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, "elr"))
        model = networks.build("mlp", (1, 8, 8), 10, hidden=(512, 128))
    return Problem(model, task="classification", seed=seed, train=train, wrong=train.take(where), test=digits().test)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on wrong labels, which only learning by heart gives, and on test rows, at the end of training."""
    plans = {"plain": plain(), "elr": method(lam=3.0, beta=0.7), "elr_1": method(lam=1.0, beta=0.7)}
    ends = {name: Run(plan, start(seed)).go() for name, plan in plans.items()}
    return {
        key: value
        for name, end in ends.items()
        for key, value in {name: end.score("wrong"), f"{name}_test": end.score("test")}.items()
    }


CLAIM = Claim(
    says="Trained on 40 percent wrong labels, a network learns them by heart and loses test accuracy; with the term "
    "(lam 3, beta 0.7) it learns hardly any and is right on test rows; with lam 1 it ends between the two.",
    trained="digits with two fifths of the training labels wrong; MLP 64-512-128-10, Adam 1e-3, 150 epochs",
    method=guarded,
    controls={"training without the piece": plain},
    measure=measure,
    holds=(
        "plain >= 0.9",
        "plain_test <= 0.8",
        "elr <= 0.1",
        "elr_test >= 0.93",
        "elr <= elr_1 <= plain",
        "plain_test <= elr_1_test <= elr_test",
    ),
)
