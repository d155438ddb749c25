"""Dark experience replay: the logits that rows had when they were stored are worth more than their labels."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.lines import SCENARIOS, SETTINGS, TRAINED, ends, lines, naive
from oblivio.core.plan import Stage


def measure(method: Method, seed: int) -> Figures:
    """Accuracy at the end in each scenario, beside experience replay with a store of the same size."""
    found = lines(SCENARIOS, seed)
    for kind in SCENARIOS:
        found[f"der_{kind}"] = ends(method(buffer=100, alpha=0.3, replay=10, **SETTINGS), kind, seed).acc
        found[f"er_{kind}"] = ends(methods.er(buffer=100, replay=10, **SETTINGS), kind, seed).acc
    return found


def labels(**settings: Any) -> Stage:
    """The stored rows' labels in place of their logits."""
    return methods.er(**{name: value for name, value in settings.items() if name != "alpha"})


CLAIM = Claim(
    says="Keeping 100 stored rows at the logits they had when they were stored keeps more of five pairs of classes "
    "than learning their labels again, without labels or boundaries.",
    trained=TRAINED + "10 replayed rows a step, 20 epochs",
    method=methods.der,
    controls={"naive training, which alpha = 0 is to the bit": naive, "experience replay": labels},
    measure=measure,
    holds=(
        "der_class >= er_class + 0.02", "der_class >= naive_class + 0.5", "der_task >= naive_task + 0.03",
        "der_domain >= naive_domain + 0.05", "der_class <= joint_class + 0.02", "der_task <= joint_task + 0.02",
        "der_domain <= joint_domain + 0.02",
    ),
    changed=(
        Changed("conditions", "measured: DER 0.936/0.996/0.937, ER 0.898/0.979/0.940; a condition on DER++ alone",
                "the margin that the card asks of DER++ in the scenario class, and naive in the others",
                "DER is a method of its own here"),
    ),
)  # fmt: skip
