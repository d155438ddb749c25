"""Outputs beside those of the references: how far apart, how often another decision, how margins are spread."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oblivio.audits.case import Case, Look
from oblivio.audits.probe import DoesNotApply, Value, average, mean_over, needs_references, probe, share

BINS = 20  # of the histograms of margins
CLIP = 100.0
FLOOR = 1e-5  # of a bin's probability under the references


@probe("alike", "divergence from the references, forgotten rows", "divergence", about="outputs")
def divergence_forget(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """Mean over rows and references of the task's divergence; Jensen-Shannon, in nats, for classes."""
    return _apart(case, look, others, "forget")


@probe("alike", "divergence from the references, test rows", "divergence", about="outputs", needs=("test",))
def divergence_test(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The same on test rows."""
    return _apart(case, look, others, "test")


@probe("alike", "another decision than the references, forgotten rows", "share", about="outputs")
def disagreement_forget(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """Share of rows that are decided otherwise, mean over the references."""
    return _otherwise(case, look, others, "forget")


@probe("alike", "another decision than the references, test rows", "share", about="outputs", needs=("test",))
def disagreement_test(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The same on test rows."""
    return _otherwise(case, look, others, "test")


@probe("alike", "KL of margins from the references, forgotten rows", "nats", about="outputs")
def margins_forget(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """KL of the histogram of margins over forgotten rows, this model's from that of the references (KLOM's form).

    The metric KLOM (Attribute-to-Delete, 2024) takes the histogram over many models at each row; with one model it is
    over rows here. Margins are clipped to 100 and put in 20 equal bins over the joint range.
    """
    return _margins(look, others, "forget")


@probe("alike", "KL of margins from the references, test rows", "nats", about="outputs", needs=("test",))
def margins_test(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The same on test rows."""
    return _margins(look, others, "test")


def _apart(case: Case, look: Look, others: Sequence[Look], on: str) -> Value:
    divergence = case.problem.task.divergence
    return mean_over([average(divergence(look[on].out, other[on].out)) for other in needs_references(others)])


def _otherwise(case: Case, look: Look, others: Sequence[Look], on: str) -> Value:
    needs_references(others)
    found = [case.problem.task.differ(look[on].out, other[on].out) for other in others]
    known = [each for each in found if each is not None]
    if not known:
        raise DoesNotApply(f"a {case.problem.task.name} decides nothing; see the divergence")
    return mean_over([share(each) for each in known])


def _margins(look: Look, others: Sequence[Look], on: str) -> Value:
    mine = look[on].margin.clamp(-CLIP, CLIP).double()
    theirs = torch.cat([other[on].margin for other in needs_references(others)]).clamp(-CLIP, CLIP).double()
    low, high = float(min(mine.min(), theirs.min())), float(max(mine.max(), theirs.max()))
    p, q = (_histogram(each, low, high) for each in (mine, theirs))
    inside = p > 0
    return Value(float((p[inside] * (p[inside] / q[inside].clamp_min(FLOOR)).log()).sum()), rows=len(mine))


def _histogram(values: Tensor, low: float, high: float) -> Tensor:
    if low == high:
        return torch.ones(1, dtype=torch.double)
    return torch.histc(values, BINS, low, high) / len(values)
