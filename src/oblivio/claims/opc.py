"""OPC: after one-point contraction a linear map cannot read the forgotten classes off the features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import Case, without
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.terms import fit

GONE = (1, 3, 8)


def misnamed(problem: Problem) -> Problem:
    """The same with a source ``misnamed``: the forgotten rows, each with a label drawn from the classes that stay."""
    labels = torch.cat([batch["y"] for batch in problem.source("retain").batches(512)])
    rows = problem.source("forget").batch(torch.arange(len(problem.source("forget"))))
    g = torch.Generator().manual_seed(problem.seed)
    drawn = labels[torch.randint(len(labels), (len(rows),), generator=g)]
    problem.make("misnamed", x=rows["x"], y=drawn)
    return problem


def renamed(where: str = "model.*", **settings: Any) -> Stage:
    """Random relabelling in place of the contraction, by the same optimiser."""
    return Descent(fit("misnamed") + fit("retain"), where, opt=adam(1e-3), over="retain", epochs=20)


def features(problem: Problem, on: str) -> Tensor:
    """The inputs of the last layer over a source, with a column of ones."""
    found: list[Tensor] = []
    head = problem.nets.get_submodule(problem.features)
    handle = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    problem.predict(on)
    handle.remove()
    values = torch.cat(found).double()
    return torch.cat([values, torch.ones(len(values), 1, dtype=torch.float64)], 1)


def recovered(start: Problem, done: Problem, eps: float = 1e-3) -> float:
    """Accuracy on the forgotten rows of the original's head behind a ridge map from the new features to the old.

    The map is fitted on retained rows alone.
    """
    new, old = features(done, "retain"), features(start, "retain")[:, :-1]
    ridge = eps * torch.eye(new.shape[1], dtype=torch.float64)
    back = torch.linalg.solve(new.T @ new + ridge, new.T @ old)
    head = start.nets.get_submodule(start.features)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        named = head((features(done, "forget") @ back).float()).argmax(1)
    labels = torch.cat([batch["y"] for batch in start.source("forget").batches(512)])
    return float((named == labels).float().mean())


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on the forgotten rows: as the model names them, and as the map recovers them."""
    case = without(GONE, seed)
    case = Case(misnamed(case.start), case.retrained)
    done, logits = (case.after(method(lam=1.0, site=site, lr=1e-3, epochs=20)) for site in ("features", "logits"))
    every, head = case.after(renamed()), case.after(renamed("model.head.*"))
    return {
        "before_others": case.start.score("kept"),
        "retrained": case.retrained.score("forget"),
        "retrained_recovered": recovered(case.start, case.retrained),
        "opc": done.score("forget"),
        "opc_others": done.score("kept"),
        "opc_recovered": recovered(case.start, done),
        "logits_recovered": recovered(case.start, logits),
        "relabelled": every.score("forget"),
        "relabelled_recovered": recovered(case.start, every),
        "head_only": head.score("forget"),
        "head_only_recovered": recovered(case.start, head),
    }


CLAIM = Claim(
    says="A linear map fitted on retained rows brings forgotten classes back after random relabelling, of all weights "
    "or of the head alone, though the model itself names none of them; after contraction of the features it does not, "
    "and less than after retraining.",
    trained="digits; classes 1, 3 and 8 go",
    method=methods.opc,
    controls={"random relabelling": renamed},
    measure=measure,
    tolerance=0.02,
    holds=(
        "opc_recovered <= 0.45",
        "opc_recovered < retrained_recovered",
        "opc_others >= 0.95",
        "relabelled_recovered >= 0.9",
        "head_only_recovered >= 0.9",
        "relabelled <= 0.02",
        "head_only <= 0.02",
    ),
    changed=(
        Changed("accuracy on forgotten rows after relabelling", "0", "at most 0.02",
                "one row of 359 would be enough to fail"),
        Changed("random labels", "not said from which classes", "from those that stay",
                "with the true one among them the accuracy could not be 0"),
    ),
)  # fmt: skip
