"""EWC: on permuted digits it keeps what plain training and plain L2 lose; on split digits without the task, nothing."""

from __future__ import annotations

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.held import ON_PERMUTED, PERMUTED, alike, first, free, learned


def measure(method: Method, seed: int) -> Figures:
    """Average accuracy and forgetting after five tasks, accuracy on the first, and the known failure."""
    plans = {"naive": free(**ON_PERMUTED), "l2": alike(**ON_PERMUTED), "ewc": method(**ON_PERMUTED)}
    found: Figures = {}
    for name, plan in plans.items():
        end = learned(plan, "permuted", seed)
        found |= {name: end.acc, f"{name}_forgetting": end.forgetting, f"{name}_first": first(end)}
    return found | {"ewc_class": learned(method(**ON_PERMUTED), "class", seed).acc}


CLAIM = Claim(
    says="After five tasks EWC is right on more rows than plain training by 0.08 or more, forgets less by 0.15 or "
    "more, and is at least as good as holding every weight alike. In class-incremental learning it fails.",
    trained=f"{PERMUTED}; SGD 0.02, batch 10, 10 epochs; lam 300 of the exact Fisher, from seeds 100, 101",
    method=methods.ewc,
    controls={"plain training": free, "every weight held alike": alike},
    measure=measure,
    holds=(
        "ewc >= naive + 0.08",
        "ewc_forgetting <= naive_forgetting - 0.15",
        "ewc >= l2",
        "ewc_class < 0.35",
    ),
    changed=(
        Changed("training rows", "not said", "1,200, and 597 to test", "the split that all claims on digits share"),
    ),
)
