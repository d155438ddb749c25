"""LoReUn: pressure on the rows that are remembered best makes random relabelling forget more at the same rate."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import ROWS, memorised
from oblivio.core.plan import Stage

SETTINGS = {"lr": 0.005, "epochs": 5}


def weighted(**settings: Any) -> Stage:
    """Random relabelling with the piece on it."""
    plan: Stage = methods.loreun(**settings)(methods.relabel(**SETTINGS))
    return plan


def plain(**settings: Any) -> Stage:
    """Random relabelling without it."""
    return methods.relabel(**SETTINGS)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on the memorised wrong labels by tau; ``tau_05`` is tau = 0.5."""
    case = memorised(seed)
    host = case.after(plain())
    done = {tau: case.after(method(tau=tau)) for tau in (0.5, 1.0, 3.0)}
    return {
        "before": case.start.score("forget"),
        "retrained": case.retrained.score("forget"),
        "host": host.score("forget"),
        "host_retain": host.score("retain"),
        "tau_05": done[0.5].score("forget"),
        "tau_1": done[1.0].score("forget"),
        "tau_3": done[3.0].score("forget"),
        "tau_05_retain": done[0.5].score("retain"),
    }


CLAIM = Claim(
    says="Weights that fall with the loss lower the accuracy on memorised wrong labels below that of random "
    "relabelling alone, the more the smaller tau is, at the same accuracy on retained rows.",
    trained=ROWS,
    method=weighted,
    controls={"the host without the piece": plain},
    measure=measure,
    holds=(
        "tau_05 <= host - 0.1",
        "abs(tau_05_retain - host_retain) <= 0.005",
        "abs(tau_3 - host) <= 0.05",
        "tau_05 <= tau_1 <= tau_3",
    ),
)
