"""Learning without forgetting: it keeps known tasks at the level of joint training, and fails where classes come."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.lines import SCENARIOS, SETTINGS, TRAINED, ends, lines, naive
from oblivio.core.plan import Stage


def measure(method: Method, seed: int) -> Figures:
    """Accuracy at the end in each scenario, and what was forgotten where the task is known."""
    found = lines(SCENARIOS, seed)
    for kind in SCENARIOS:
        found[f"lwf_{kind}"] = ends(method(**SETTINGS), kind, seed).acc
    return found | {"lwf_task_forgetting": ends(method(**SETTINGS), "task", seed).forgetting}


def unbound(**settings: Any) -> Stage:
    """The answers of the model before do not count."""
    return methods.lwf(**{**settings, "lambda_o": 0.0})


CLAIM = Claim(
    says="The answers of the model before on the new rows keep the earlier tasks where the task is known, without a "
    "stored row; where classes come in turn they do not.",
    trained=TRAINED + "20 epochs",
    method=methods.lwf,
    controls={"lambda_o = 0": unbound, "naive training": naive},
    measure=measure,
    holds=(
        "lwf_task >= naive_task + 0.05", "lwf_task_forgetting <= 0.02", "lwf_class <= 0.4",
        "lwf_task <= joint_task + 0.02",
    ),
    changed=(
        Changed("joint", "a line beside", "a condition: no more than 0.02 above it",
                "the condition of the card joint_naive"),
    ),
)  # fmt: skip
