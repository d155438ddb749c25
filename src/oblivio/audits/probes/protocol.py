"""The protocol of the card uuef: outputs and features beside retrained models, as one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, harmonic_mean

from oblivio.audits.case import Case, Look
from oblivio.audits.probe import DoesNotApply, Value, needs_references, probe
from oblivio.audits.probes.accuracy import forget, kept, retain, unseen
from oblivio.audits.probes.features import nearest
from oblivio.audits.probes.layers import alike


@probe("alike", "closeness to the references by outputs and features", "share", about="features",
       needs=("forget", "retain", "test"))  # fmt: skip
def uuef(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """Harmonic mean of two products of ``1 - |gap to the references' mean|``: 1 is as close as can be.

    Of outputs: accuracy on forgotten and retained rows, and on test rows of the classes that go and that stay. Of
    features: CKA to the original and k-NN accuracy, each on forgotten and on retained rows. What is measured is that
    of Are We Truly Forgetting? (2025); the products and their harmonic mean are this library's, not the paper's code.
    """
    needs_references(others)
    if not case.classes:
        raise DoesNotApply("no class goes entirely, so test rows do not divide into those that go and those that stay")
    near = [math.prod(_near(part(case, look), [part(case, each) for each in others])) for part in (_outputs, _features)]
    return Value(harmonic_mean(near), note=f"outputs {near[0]:.3f}, features {near[1]:.3f}")


def _outputs(case: Case, look: Look) -> list[float]:
    return [figure(case, look, []).value for figure in (forget, retain, unseen, kept)]


def _features(case: Case, look: Look) -> list[float]:
    similar = [alike(look, [case.original], on).value for on in ("forget", "retain")]
    return [*similar, *(nearest(case, look, on).value for on in ("forget", "retain"))]


def _near(mine: Sequence[float], theirs: Sequence[Sequence[float]]) -> list[float]:
    return [max(0.0, 1 - abs(value - fmean(each))) for value, *each in zip(mine, *theirs, strict=True)]
