"""D2DGN: deleted edges become like edges that were never there, and the other links stay."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import nothing
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.core.source import Source
from oblivio.jobs.graphs import GraphCase, graph_case
from oblivio.jobs.method import apply
from oblivio.tasks.graph import graph_task

STEPS = 100  # of training, as of unlearning
TRAINING: dict[str, Any] = {"steps": STEPS, "wd": 0.0, "options": {"hidden": [128, 64], "dropout": 0.0}}
RATES = (0.01, 0.03, 0.1, 0.3)


@cache
def case(seed: int) -> GraphCase:
    """Five per cent of the edges go from a GCN that predicts edges."""
    return graph_case("cora", "link", share=0.05, seed=seed, **TRAINING)


def whole(problem: Problem) -> Problem:
    """The same with messages over the graph before the deletion, as the original is served."""
    other = copy.copy(problem)
    other.task = graph_task(problem).original
    return other


def auc(above: Tensor, below: Tensor) -> float:
    """How often a value of the first is above one of the second, ties by half."""
    right = torch.cat([torch.ones(len(above)), torch.zeros(len(below))])
    return float(roc_auc_score(right.numpy(), torch.cat([above, below]).numpy()))


def targets(source: Source) -> Tensor:
    """Whether the pairs of a source are joined."""
    found: Tensor = source.batch(torch.arange(len(source)))["y"]
    return found == 1


def forgotten(problem: Problem) -> float:
    """AUC of as many retained edges as there are deleted ones, against these."""
    gone = problem.predict("forget")
    stays = problem.predict("retain")[targets(problem.source("retain"))]
    order = torch.randperm(len(stays), generator=generator("forgotten", problem.seed))
    return auc(stays[order[: len(gone)]], gone)


def served(problem: Problem, on: str = "test") -> float:
    """AUC of test edges against pairs that no edge joins."""
    out, joined = problem.predict(on), targets(problem.source(on))
    return auc(out[joined], out[~joined])


@cache
def ascent(seed: int) -> Problem:
    """Gradient ascent in 20 steps, at the rate of ``RATES`` whose forget AUC ends nearest to that of the reference."""
    found = case(seed)
    aim = forgotten(found.references[0])
    ends = [apply(methods.grad_ascent(lr=lr, epochs=20, batch=1024, most=1e9), found.start)[0] for lr in RATES]
    return min(ends, key=lambda end: abs(forgotten(end) - aim))


def measure(method: Method, seed: int) -> Figures:
    """Forget and test AUC of the original on its own graph, and of the others on what is left."""
    made = case(seed)
    done = apply(method(variant="hybrid", alpha=0.8, lr=1e-4, steps=STEPS), made.start)[0]
    ends = {"before": whole(made.start), "cut": made.start, "retrained": made.references[0], "d2dgn": done,
            "ascent": ascent(seed)}  # fmt: skip
    gone = {name: forgotten(end) for name, end in ends.items()}
    return gone | {f"{name}_test": served(end) for name, end in ends.items()}


CLAIM = Claim(
    says="After D2DGN, deleted edges are told from retained ones as after retraining (forget AUC), and test edges from "
    "pairs apart as well (test AUC), better than after gradient ascent at the rate that comes nearest to the forget "
    "AUC of retraining. To stop the messages over the deleted edges is most of that and costs little test AUC (cut: "
    "the original asked without them), but is not all.",
    trained="Cora; a GCN with layers of 128 and 64 that predicts edges; 5 per cent of its training edges go",
    method=methods.d2dgn,
    controls={"the method as a no-op, the messages cut": nothing},
    measure=measure,
    tolerance=0.05,
    holds=(
        "d2dgn >= before + 0.2",
        "abs(d2dgn - retrained) <= 0.05",
        "abs(d2dgn_test - retrained_test) <= 0.03",
        "d2dgn_test > ascent_test",
        "d2dgn > cut",
    ),
    changed=(
        Changed("lr", "1e-3 (assumed)", "1e-4", "chosen on seed 100: at 1e-3 a hundred steps go far past retraining "
                "(forget AUC 0.97, retrained 0.70)"),
        Changed("that it is more than a cut", "not asked", "d2dgn > cut", "asking the original without the messages "
                "gives most of the rise in forget AUC by itself"),
    ),
)  # fmt: skip
