"""ER-ACE: earlier classes are not pressed down by new rows, so that less is lost when an experience begins."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.continual import SPLIT, course, network, split_digits
from oblivio.core.plan import Stage
from oblivio.data.history import History
from oblivio.learners.learner import Learner

SETTINGS = {"lr": 0.1, "batch": 10, "epochs": 1, "replay": 10}


def symmetric(**settings: Any) -> Stage:
    """Plain replay in its place."""
    return methods.er(**settings)


def measure(method: Method, seed: int) -> Figures:
    """One pass with 100 stored rows: accuracy, forgetting, and the worst accuracy on the way."""
    found: Figures = {}
    for name, plan in {"ace": method(buffer=100, **SETTINGS), "er": methods.er(buffer=100, **SETTINGS)}.items():
        stream = split_digits("class", seed)
        learner, history = Learner(network(stream, seed), plan, "classification", seed), History(stream.test)
        trace = history.trace(every=1)
        for experience in stream.train:
            learner.learn(experience, watch=[trace])
            history.record(learner)
        found |= {f"{name}_{what}": history.metrics()[what] for what in ("acc", "fm", "min_acc")}
    naive = course(methods.naive(lr=0.1, batch=10, epochs=1), split_digits("class", seed), seed)
    return {**found, "naive_acc": naive.acc}


CLAIM = Claim(
    says="In one pass, learning new rows among their own classes and stored ones among all loses less of earlier "
    "classes when an experience begins, and forgets less, than plain replay, at an accuracy at least as high.",
    trained=f"{SPLIT}; SGD at rate 0.1, one pass, batch 10 and 10 replayed rows, 100 stored",
    method=methods.er_ace,
    controls={"plain replay": symmetric},
    measure=measure,
    holds=("ace_acc >= er_acc", "ace_fm < er_fm", "ace_min_acc > er_min_acc", "ace_acc >= naive_acc + 0.3"),
    changed=(
        Changed("problem", "online CIFAR and Mini-ImageNet, a slim ResNet-18", "digits, an MLP",
                "what two cores can train over seeds; the method has no card"),
        Changed("rate", "none", "0.1, that of the claim uer", "chosen after a look at seed 0 with 0.05, at which one "
                "pass over 1,200 rows learns little by either method"),
    ),
)  # fmt: skip
