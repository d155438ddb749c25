"""Requests of a few rows: a p-value, by ranks among unseen rows, that the model knows them better than such rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from oblivio.audits.auc import counts, placements
from oblivio.audits.case import Case, Look
from oblivio.audits.probe import DoesNotApply, Value, probe
from oblivio.audits.probes.membership import classes, relative
from oblivio.core.seeds import generator

MANY = 100  # rows, from which shares and AUCs say enough
LEVEL = 0.01  # of the test
DRAWS = 9999


@probe("gone", "p of the ranks of forgotten among unseen rows", "p", needs=("forget", "test"), about="outputs")
def small_request(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The probability, of forgotten rows that the model does not know, to rank as high among unseen rows or higher.

    What is ranked is the margin less its mean over the references (see ``mia_lira``), within each class. The p-value
    of one row is (1 + unseen rows at least as high) / (1 + unseen rows). Several rows share their unseen rows, so
    their p-values depend on each other; the ranks are summed over them, each as a share of the rows of its class
    (after van Elteren, 1960), and the sum is held against those of random choices of as many rows of each class
    (Phipson and Smyth, 2010). That is valid at any number of rows, unseen rows, and ties.
    """
    if len(case.targets["forget"]) >= MANY:
        raise DoesNotApply(f"for requests of fewer than {MANY} rows")
    ours, theirs = relative(look, others, "forget"), relative(look, others, "test")
    strata = [(ours[gone], theirs[beside]) for _, gone, beside in classes(case)]
    each = torch.cat([row_p(*pair) for pair in strata])
    bound = least(strata)
    p = float(each) if len(each) == 1 else max(together(strata, generator(case.problem.seed, "small_request")), bound)
    return Value(
        p,
        rows=len(each),
        note="; ".join([f"smallest p of a row {float(each.min()):.3f}", *_limits(case, len(each), bound)]),
    )


def row_p(forgotten: Tensor, unseen: Tensor) -> Tensor:
    """The p-value of each forgotten row of one class, shape (m,)."""
    less, _ = counts(forgotten, unseen)
    return (1 + len(unseen) - less) / (1.0 + len(unseen))


def together(strata: Sequence[tuple[Tensor, Tensor]], draws: torch.Generator) -> float:
    """The one-sided p-value of the stratified rank sum, by ``DRAWS`` random choices of forgotten rows.

    Args:
        strata: of each class, the statistics of forgotten and of unseen rows, shapes (m,) and (n,).
        draws: of the choices.
    """
    found, chance = 0.0, torch.zeros(DRAWS, dtype=torch.double)
    for forgotten, unseen in strata:
        both = torch.cat([forgotten, unseen])
        ranks = placements(both, both)
        found += float(ranks[: len(forgotten)].sum())
        chance += ranks[choices(len(forgotten), len(both), draws)].sum(0)
    rounding = 1e-9  # equal sums of different order must count as equal
    return (1 + int((chance >= found - rounding).sum())) / (1 + DRAWS)


def choices(some: int, of: int, draws: torch.Generator) -> Tensor:
    """``DRAWS`` uniform choices of ``some`` different numbers below ``of``, shape (some, DRAWS) (Floyd, 1987)."""
    chosen = torch.empty(some, DRAWS, dtype=torch.long)
    for place, top in enumerate(range(of - some, of)):
        number = torch.randint(top + 1, (DRAWS,), generator=draws)
        taken = (chosen[:place] == number).any(0)
        chosen[place] = number.masked_fill(taken, top)
    return chosen


def least(strata: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The p-value of a request whose rows all rank first: one of all choices of forgotten rows is as high."""
    return 1 / math.prod(math.comb(len(ours) + len(theirs), len(ours)) for ours, theirs in strata)


def _limits(case: Case, ranked: int, bound: float) -> list[str]:
    """What the test could not see: rows with nothing to be ranked among, and a level that no ranks could reach."""
    y, alone = case.targets["forget"], len(case.targets["forget"]) - ranked
    found = [f"rows left out, of classes without unseen rows: {alone}"] if alone else []
    if bound < LEVEL:
        return found
    counted = [(int(y[gone[0]]) if case.labelled else None, len(beside)) for _, gone, beside in classes(case)]
    said = [f"{'there are' if c is None else f'class {c} has'} {n} unseen row{'s' * (n > 1)}" for c, n in counted]
    return [*found, f"{', '.join(said)}: p cannot be below {bound:.3f}"]
