"""Retraining: what it gives cannot be told from a model trained without the rows by the original's recipe."""

from __future__ import annotations

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import ROWS, memorised, nothing


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on the memorised wrong labels and on test rows."""
    case = memorised(seed)
    done = case.after(method())
    return {
        "before": case.start.score("forget"),
        "retrain": done.score("forget"),
        "retrain_test": done.score("test"),
        "reference": case.retrained.score("forget"),
        "reference_test": case.retrained.score("test"),
    }


CLAIM = Claim(
    says="From new random weights, nothing of memorised wrong labels is left, and test accuracy is that of a reference "
    "trained on the same rows by the original's recipe.",
    trained=ROWS,
    method=methods.retrain,
    controls={"the method as a no-op": nothing, "fine-tuning": methods.finetune},
    measure=measure,
    holds=("abs(retrain - reference) <= 0.02", "abs(retrain_test - reference_test) <= 0.02"),
    changed=(
        Changed("the whole check", "none: the method has no card", "shipped defaults; 0.02 from a reference",
                "it is the definition that the cards measure against"),
    ),
)  # fmt: skip
