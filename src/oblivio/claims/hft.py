"""HFT: half of each block's matrices held, and less of what was known is lost."""

from __future__ import annotations

import functools
from statistics import fmean
from typing import Any

import torch

from oblivio import methods, terms, where
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.tuned import RATE, TRAINED, Tuned, host, training, tuned
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem, rng
from oblivio.sources.tokens import Tokens
from oblivio.terms import fit

L2 = 0.03  # of the distance from the start: new facts as well learned as with half fine-tuning, on seed 100
SETS = 3  # of new facts, one after the other


@edit
def half_back(problem: Problem) -> None:
    """Half of all entries, drawn at random, as they were at the start."""
    for name, weight in problem.weights("model.*").items():
        back = torch.rand(weight.shape, generator=rng(problem, "half", name)) < 0.5
        weight.copy_(problem.kept("start")[name].where(back, weight))


def reset(plan: Stage) -> Stage:
    """A plan, then half of it undone."""
    undo = half_back()
    undo.keeps = ("start",)
    return plan >> undo


def forgotten(t: Tuned, piece: Any) -> Figures:
    """What sets of new facts, one after the other, leave of those before: the mean loss, and how well each is learned.

    Facts that are known at first count as a set too.
    """
    facts = t.mini.tokens("forget+holdout")
    size = len(facts) // SETS
    parts = [facts.take(range(i * size, (i + 1) * size)) for i in range(SETS)]
    model, best, learned = t.base, [language.probability(t.base, t.old)], []
    for turn, part in enumerate(parts):
        problem = t.mini.problem(model, forget=None, retain=None, train=part)
        problem.turn = turn
        model = language.after(piece(training()), problem).model
        learned.append(language.probability(model, part))
        best.append(learned[-1])
    before: list[Tokens] = [t.old, *parts[:-1]]
    lost = [b - language.probability(model, part) for b, part in zip(best, before, strict=False)]
    return {"forgetting": fmean(lost), "learned": fmean(learned)}


@functools.cache
def without(seed: int) -> Figures:
    """What does not depend on the method: all weights trained, half of that undone, and other ways to keep."""
    t = tuned(seed)
    plans = {
        "reset": reset(t.again),
        "l2": training(fit("train") + L2 * terms.l2_init()),
        "lora": training(where=where.lora(r=8)),
    }
    figures = t.figures("base", t.base) | t.figures("full", t.full)
    for name, plan in plans.items():
        figures |= t.figures(name, t.after(plan))
    return figures | {f"full_{what}": value for what, value in forgotten(t, host()).items()}


def measure(method: Method, seed: int) -> Figures:
    """Probabilities of new and old facts after tuning in different ways, and after three sets of new facts."""
    t = tuned(seed)
    sequence = {f"hft_{what}": value for what, value in forgotten(t, method()).items()}
    return without(seed) | t.figures("hft", t.after(method()(training()))) | sequence


CLAIM = Claim(
    says="Tuned to new facts with half of each block's matrices held, a model keeps more of what it knew than with all "
    "of them trained, and learns the new as well; over three sets of facts, another half at each, it forgets less.",
    trained=TRAINED,
    method=methods.hft,
    controls={"all weights trained": host},
    measure=measure,
    holds=(
        "hft_new > 0.99",
        "full_new > 0.99",
        "hft_old > full_old + 0.08",
        "reset_old > full_old",
        "reset_old < base_old",
        "reset_new < full_new",
        "reset_new > base_new",
        "hft_forgetting < full_forgetting",
    ),
    changed=(
        RATE,
        Changed("facts of a set, in the sequence", "36", "24", "the testbed holds 72 facts that are not learned"),
    ),
)
