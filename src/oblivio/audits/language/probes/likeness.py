"""Whether a model is as one that never learned the texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from oblivio.audits.language import knowledge
from oblivio.audits.language.case import TextCase, TextLook
from oblivio.audits.language.probes import probe
from oblivio.audits.probe import DoesNotApply, Value

TRUTH = ("forget paraphrase", "forget wrong 0")


def ratios(case: TextCase, look: TextLook) -> torch.Tensor:
    """Truth ratios on the forgotten texts in the geometric form, shape (n,)."""
    return knowledge.truth_ratio(look["forget paraphrase"], [look[name] for name in case.wrong("forget")])


@probe("alike", "distance of truth ratios from the references' (KS)", "similarity", about="outputs", needs=TRUTH)
def truth_distance(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The Kolmogorov-Smirnov distance of the truth ratios to those of a reference, the mean over references."""
    found = _tests(case, look, others)
    return Value(sum(each.statistic for each in found) / len(found), rows=found[0].rows,
                 note=f"largest {max(each.statistic for each in found):.3f}")  # fmt: skip


@probe("alike", "forget quality (KS p, the least over references)", "p", needs=TRUTH)
def forget_quality(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """TOFU's forget quality. A destroyed model scores well on it: it says nothing without the utility."""
    found = _tests(case, look, others)
    return Value(min(each.p for each in found), rows=found[0].rows,
                 note=f"{found[0].rows} truth ratios; to be read beside the utility")  # fmt: skip


def _tests(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> list[knowledge.Quality]:
    if not others:
        raise DoesNotApply("there is no other reference to compare with")
    return [knowledge.forget_quality(ratios(case, look), ratios(case, other)) for other in others]
