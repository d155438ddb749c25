"""DER++: stored logits and stored labels together are worth more than labels, most with a small store."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.lines import SCENARIOS, SETTINGS, TRAINED, ends, lines, naive
from oblivio.core.plan import Stage


def measure(method: Method, seed: int) -> Figures:
    """Accuracy at the end, beside experience replay with stores of the same size."""
    found = lines(SCENARIOS, seed)
    weights = {"alpha": 0.3, "beta": 0.5, "replay": 10}
    for kind, size in [*((kind, 100) for kind in SCENARIOS), ("class", 50)]:
        found[f"der_pp_{kind}_{size}"] = ends(method(buffer=size, **weights, **SETTINGS), kind, seed).acc
        found[f"er_{kind}_{size}"] = ends(methods.er(buffer=size, replay=10, **SETTINGS), kind, seed).acc
    return found


def labels(**settings: Any) -> Stage:
    """Labels alone: experience replay."""
    return methods.der_pp(**{**settings, "alpha": 0.0, "beta": 1.0})


CLAIM = Claim(
    says="Stored rows whose logits are kept and whose labels are learned keep more of five pairs of classes than the "
    "same number whose labels alone are learned.",
    trained=TRAINED + "10 rows a step in each of two draws, 20 epochs",
    method=methods.der_pp,
    controls={"naive training, which alpha = beta = 0 is to the bit": naive, "alpha = 0, beta = 1": labels},
    measure=measure,
    holds=(
        "der_pp_class_50 >= er_class_50 + 0.02", "der_pp_class_100 >= er_class_100 + 0.02",
        "der_pp_task_100 > naive_task", "der_pp_domain_100 > naive_domain",
        "der_pp_class_100 <= joint_class + 0.02", "der_pp_task_100 <= joint_task + 0.02",
        "der_pp_domain_100 <= joint_domain + 0.02",
    ),
    changed=(
        Changed("alpha = beta = 0 equals naive; alpha = 0, beta = 1 equals ER up to sampling", "part of the check",
                "tests of the library, the first to the bit: tests/test_replay.py; both are controls",
                "they need no accuracy"),
    ),
)  # fmt: skip
