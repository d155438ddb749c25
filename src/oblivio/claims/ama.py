"""AMA: a ratio of old and new weights learned for every depth."""

from __future__ import annotations

from typing import Any

import torch

from oblivio import methods, terms
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.tuned import RATE, TRAINED, Piece, Tuned, training, tuned
from oblivio.core.descent import Descent
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.networks.language import blocks
from oblivio.terms import fit

A, GROUPS = 0.5, 4
L2 = 0.03  # as in hft's claim


def uniform(**settings: Any) -> Piece:
    """One ratio for all weights: nothing is learned."""
    piece: Piece = methods.ama(**{**settings, "epochs": 0})
    return piece


def learned(t: Tuned) -> Stage:
    """The outcome of plain fine-tuning, as a plan that learns the new facts."""
    return t.again >> Descent(fit("train"), opt=adamw(1e-3), steps=0)


def ratios(t: Tuned, done: Problem) -> list[float]:
    """The share of the old weights in each block, from the weights themselves."""
    old, new, now = (dict(m.named_parameters()) for m in (t.base, t.full.model, done.model))
    found = []
    for block in blocks(done.model):
        names = [n for n in now if n.startswith(f"{block}.")]
        back, whole = (torch.cat([(new[n] - x[n]).detach().flatten() for n in names]) for x in (now, old))
        found.append(float(back @ whole / (whole @ whole)))
    return found


def measure(method: Method, seed: int) -> Figures:
    """Probabilities of new and old facts, and the ratios."""
    t = tuned(seed)
    done = t.after(method(a=A, groups=GROUPS)(learned(t)))
    shares = ratios(t, done)
    return {
        **t.figures("full", t.full),
        **t.figures("uniform", t.after(uniform(a=A)(learned(t)))),
        **t.figures("ama", done),
        **t.figures("lines", t.after(methods.lines(alpha=0.5)(t.again))),
        **t.figures("l2", t.after(training(fit("train") + L2 * terms.l2_init()))),
        **{f"a_{i}": share for i, share in enumerate(shares)},
        "spread": max(shares) - min(shares),
    }


CLAIM = Claim(
    says="Half of the old weights and half of the new know both the old facts and most of the new ones; with as much "
    "of the old on average, in ratios learned for every block, more of the new.",
    trained=TRAINED,
    method=methods.ama,
    controls={"one ratio for all weights": uniform},
    measure=measure,
    holds=(
        "uniform_old > 0.95",
        "uniform_new > 0.9",
        "ama_new >= uniform_new + 0.01",
        "ama_old >= uniform_old - 0.03",
        "spread > 0.2",
    ),
    because={
        "uniform_new > 0.9": "At the lower rate of tuning the new facts are known less firmly, and half of the change "
        "loses more of them; on seed 100 at the card's rate it was 0.95",
        "ama_old >= uniform_old - 0.03": "Nothing in the objective keeps old facts: the first block takes the new "
        "weights, by which new facts gain more than old ones lose",
    },
    changed=(RATE,),
)
