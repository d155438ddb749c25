"""PLwF: all earlier models as teachers, their gradients projected off each other, keep more than the last one alone."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.lines import SETTINGS, TRAINED, ends, lines
from oblivio.core.plan import Stage

TEN = {**SETTINGS, "epochs": 10}


def measure(method: Method, seed: int) -> Figures:
    """Accuracy and forgetting at the end, and accuracy on arrival, beside no teacher, the last, and half the method."""
    found = lines(("class", "task"), seed, epochs=10)
    plans = {
        "local": methods.naive(loss="current", **TEN),
        "plwf": method(teachers="all", projection="pairwise", **TEN),
        "last": methods.plwf(teachers="last", projection="none", **TEN),
        "last_projected": methods.plwf(teachers="last", projection="pairwise", **TEN),
        "all_added": methods.plwf(teachers="all", projection="none", **TEN),
    }
    for name, plan in plans.items():
        end = ends(plan, "class", seed)
        found |= {f"{name}_class": end.acc, f"{name}_class_forgetting": end.forgetting}
        found[f"{name}_class_learned"] = end.learned
    found["plwf_task"] = ends(plans["plwf"], "task", seed).acc
    return found


def last(**settings: Any) -> Stage:
    """The last teacher alone, its gradient added."""
    return methods.plwf(**{**settings, "teachers": "last", "projection": "none"})


def local(**settings: Any) -> Stage:
    """No teacher: naive training with the local loss."""
    return methods.naive(loss="current", **{k: v for k, v in settings.items() if k in TEN})


CLAIM = Claim(
    says="With every earlier model as a teacher on the new rows and conflicts between gradients projected away, a "
    "network keeps more of five pairs of classes than with the last model alone, and stores no row.",
    trained=TRAINED + "10 epochs",
    method=methods.plwf,
    controls={"the last teacher alone": last, "no teacher": local},
    measure=measure,
    holds=(
        "plwf_class >= last_class + 0.02", "plwf_class_forgetting < last_class_forgetting",
        "plwf_class >= local_class", "plwf_class <= joint_class + 0.02",
        "plwf_task >= naive_task + 0.03", "plwf_task <= joint_task + 0.02",
    ),
    changed=(
        Changed("products after projection", "part of the check", "a test of the library: tests/test_gradient_rules.py",
                "it needs no training"),
        Changed("lines", "none",
                "above naive training with the same local loss, and where the task is known above naive",
                "the last teacher alone is not the only thing that it must beat"),
    ),
    because={
        "plwf_class >= local_class":
        "The local loss alone ends as high because it hardly lets new classes win: of each pair it has far less "
        "right when it comes (local_class_learned against plwf_class_learned), and the classes before go on winning. "
        "PLwF learns the new pair and loses some of the old. The cards have the same order: 0.435, and 0.45 for the "
        "local loss (joint_naive)",
    },
)  # fmt: skip
