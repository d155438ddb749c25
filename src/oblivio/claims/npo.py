"""NPO: an ascent that fades keeps the model where plain ascent destroys it. Memorised wrong labels."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cosine_similarity

from oblivio import methods, terms
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.grad_ascent import PER_EPOCH, TASK, floor
from oblivio.claims.problems import ROWS, Case, Make, chance, likelihood, memorised, unstopped
from oblivio.core.grads import Grads
from oblivio.core.plan import Stage

STEPS, EARLY = 120, 80


def ascent(beta: float, retain: float, **settings: Any) -> Stage:
    """Gradient ascent in its place; with a retain term gradient difference."""
    plan: Stage = methods.grad_diff(gamma=1.0, alpha=retain, **settings) if retain else methods.grad_ascent(**settings)
    return plan


def likeness(case: Case, lr: float) -> float:
    """The cosine between the gradients of NPO with a vanishing beta and of ascent, some steps from the start."""
    done = case.after(methods.npo(beta=1e-4, retain=0.0, lr=lr, epochs=5))
    one, other = done.gradient(terms.npo("forget", beta=1e-4)), done.gradient(-terms.fit("forget"))
    return float(cosine_similarity(_flat(one), _flat(other), dim=0))


def _flat(grads: Grads) -> torch.Tensor:
    return torch.cat([grads[name].flatten() for name in sorted(grads)])


def claim(trained: str, problem: Make, lr: float, **facts: Any) -> Claim:
    """The claim on one kind of request; ``facts`` are other fields of it."""

    def measure(method: Method, seed: int) -> Figures:
        case, forget, retain = problem(seed), likelihood("forget"), likelihood("retain")
        settings = {"lr": lr, "epochs": STEPS / PER_EPOCH}
        alone = {
            beta: case.path(unstopped(method(beta=beta, retain=0.0, **settings)), retain=retain) for beta in (1.0, 3.0)
        }
        held, differed = (case.after(unstopped(make(beta=1.0, retain=1.0, **settings))) for make in (method, ascent))
        return {
            "chance": chance(case.start),
            "before": forget(case.start),
            "retrained": forget(case.retrained),
            "retrained_retain": retain(case.retrained),
            "ascent_retain": retain(case.after(unstopped(ascent(1.0, 0.0, **settings)))),
            "beta_1_retain": alone[1.0][STEPS]["retain"],
            "beta_1_drift": abs(alone[1.0][STEPS]["retain"] - alone[1.0][EARLY]["retain"]),
            "beta_3_retain": alone[3.0][STEPS]["retain"],
            "beta_3_drift": abs(alone[3.0][STEPS]["retain"] - alone[3.0][EARLY]["retain"]),
            "held": forget(held),
            "held_retain": retain(held),
            "grad_diff_retain": retain(differed),
            "cosine": likeness(case, lr),
        }

    return Claim(
        says="Without a retain term the likelihood of retained rows levels off (drift: from step 80 to 120), higher "
        "with a larger beta, where ascent at the same rate takes it to chance. With the retain term (held) it stays, "
        "where gradient difference loses it. With beta to 0 the gradient is that of ascent.",
        trained=trained,
        method=methods.npo,
        controls={"gradient ascent and gradient difference": ascent},
        measure=measure,
        holds=(
            "ascent_retain <= chance + 0.01",
            "beta_1_retain > chance + 0.1",
            "beta_3_retain > chance + 0.25",
            "beta_1_drift < 0.02",
            "beta_3_drift < 0.02",
            "held_retain > 0.97",
            "held_retain > grad_diff_retain",
            "held < 0.4",
            "cosine > 0.999",
        ),
        changed=(
            TASK,
            floor("0.01, 0.1, 0.25"),
            Changed("rate", "Adam 3e-4", f"SGD {lr:g}, momentum 0.9",
                    "that of grad_ascent's claim, at which ascent ends at chance"),
        ),
        **facts,
    )  # fmt: skip


CLAIM = claim(ROWS, memorised, lr=0.005)
