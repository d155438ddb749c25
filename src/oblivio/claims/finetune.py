"""Fine-tuning: it keeps what it should keep, and does not reach retraining on memorised labels."""

from __future__ import annotations

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import ROWS, memorised, nothing


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on the memorised wrong labels, and on the rest."""
    case = memorised(seed)
    done = case.after(method())
    return {
        "before": case.start.score("forget"),
        "retrained": case.retrained.score("forget"),
        "finetune": done.score("forget"),
        "finetune_retain": done.score("retain"),
        "finetune_test": done.score("test"),
    }


CLAIM = Claim(
    says="Training on with the retained rows alone fades memorised wrong labels without loss on the rest, and stays "
    "far from a model that never saw them.",
    trained=ROWS,
    method=methods.finetune,
    controls={"retraining": methods.retrain, "the method as a no-op": nothing},
    measure=measure,
    holds=("finetune >= retrained + 0.1", "finetune <= before - 0.05", "finetune_retain >= 0.99"),
    changed=(
        Changed("the whole check", "none: the method has no card", "shipped defaults; 0.1 from retraining",
                "the cards take fine-tuning as the baseline that falls short"),
    ),
)  # fmt: skip
