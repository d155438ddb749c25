"""Sparsity: an l1 penalty, or pruning first, makes fine-tuning forget more at the same accuracy."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import ROWS, memorised
from oblivio.core.plan import Stage

GAMMAS = (0.0, 1e-4, 5e-4, 1e-3, 2e-3)
RATES = {"slow": 0.01, "fast": 0.05}


def dense(gamma: float, prune: float, **settings: Any) -> Stage:
    """The same training without penalty or pruning."""
    return methods.l1_sparse(gamma=0.0, prune=0.0, **settings)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on the memorised wrong labels by gamma, numbered from 0, at both rates."""
    case = memorised(seed)
    figures = {"before": case.start.score("forget"), "retrained": case.retrained.score("forget")}
    for rate, lr in RATES.items():
        for i, gamma in enumerate(GAMMAS):
            done = case.after(method(gamma=gamma, prune=0.0, lr=lr, epochs=20))
            figures |= {f"{rate}_{i}": done.score("forget"), f"{rate}_{i}_test": done.score("test")}
        pruned = case.after(method(gamma=0.0, prune=0.8, lr=lr, epochs=20))
        figures |= {f"{rate}_pruned": pruned.score("forget"), f"{rate}_pruned_test": pruned.score("test")}
    return figures


def conditions(rate: str) -> list[str]:
    """What must hold at one rate."""
    falls = [f"{rate}_{i + 1} <= {rate}_{i} + 0.02" for i in range(4)]
    keeps = [f"{rate}_{i}_test >= {rate}_0_test - 0.01" for i in range(1, 4)]
    return [*falls, *keeps, f"{rate}_4 < {rate}_0", f"{rate}_pruned < {rate}_0"]


CLAIM = Claim(
    says="Accuracy on memorised wrong labels falls as the penalty grows from 0 (figures numbered 0 to 4: gamma 0, "
    "1e-4, 5e-4, 1e-3, 2e-3), while test accuracy stays; pruning 80 percent first does the same for plain fine-tuning.",
    trained=ROWS,
    method=methods.l1_sparse,
    controls={"no penalty and no pruning": dense},
    measure=measure,
    holds=[condition for rate in RATES for condition in conditions(rate)],
    changed=(
        Changed("test accuracy up to gamma 1e-3", "within 0.01 of gamma 0", "at most 0.01 below gamma 0",
                "wrong labels harm the original, so forgetting them may raise it, which is no fault"),
    ),
)  # fmt: skip
