"""Layer by layer: how alike two models represent the same rows, by linear centred kernel alignment (CKA)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TypeAlias

from torch import Tensor

from oblivio.audits.case import Case, Look
from oblivio.audits.probe import DoesNotApply, Value, needs_features, needs_references, probe
from oblivio.audits.probes.features import thinned

LEAST = 512  # rows: the fewer there are beside the number of features, the more alike all models look
FLAT = 1e-6  # deviation, as a share of the size, of values that are taken for constant
Curve: TypeAlias = list[tuple[str, float]]


@probe("alike", "CKA of features with the references, test rows", "similarity", about="features", needs=("test",))
def cka(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """Mean over the references; the curve has the layers that hold weights, in order, maps and tokens averaged."""
    return alike(look, needs_references(others), "test")


@probe("alike", "CKA of features with the references, forgotten rows", "similarity", about="features")
def cka_forget(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The same on forgotten rows, where models that learned them differ from models that did not."""
    return alike(look, needs_references(others), "forget")


@probe(
    "alike", "CKA of features with the original", "similarity", about="features", of=("outcome", "reference", "control")
)
def cka_original(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The same with the original, on forgotten rows, or on test rows where there are fewer than 512 of them."""
    on = "forget" if len(thinned(case.sample["forget"])) >= LEAST or "test" not in case.sample else "test"
    found = alike(look, [case.original], on)
    return Value(found.value, rows=found.rows, curve=found.curve, note=f"{on} rows")


def alike(look: Look, others: Sequence[Look], on: str) -> Value:
    """Mean CKA of the features with those of others, and by layer, on at most 1,024 rows of a source."""
    mine = thinned(needs_features(look, on))
    if len(mine) < LEAST:
        raise DoesNotApply(f"{len(mine)} {on} rows are too few to compare features on; it takes {LEAST}")
    value = fmean(similarity(mine, thinned(needs_features(other, on))) for other in others)
    return Value(value, rows=len(mine), curve=_by_layer(look, others, on))


def _by_layer(look: Look, others: Sequence[Look], on: str) -> Curve:
    """Layers that all have, of the same rows."""
    known = [other[on].layers for other in others]
    return [
        (name, fmean(similarity(mine, theirs[name]) for theirs in known))
        for name, mine in look[on].layers.items()
        if all(name in theirs and len(theirs[name]) == len(mine) for theirs in known)
    ]


def similarity(x: Tensor, y: Tensor) -> float:
    """Linear CKA of two representations of the same rows, shapes (n, d) and (n, e): from 0 to 1, the same.

    ``|X'Y|^2 / (|X'X| |Y'Y|)`` with centred columns, or of the centred Gram matrices, which is the same, where rows
    are fewer (Similarity of Neural Network Representations Revisited, 2019). Rotations and scales change nothing. What
    does not vary is like nothing: 0.
    """
    x, y = _centred(x), _centred(y)
    if len(x) < max(x.shape[1], y.shape[1]):
        both, within = ((x @ x.T) * (y @ y.T)).sum(), (x @ x.T).norm() * (y @ y.T).norm()
    else:
        both, within = (x.T @ y).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    return float(both / within) if within > 0 else 0.0


def _centred(values: Tensor) -> Tensor:
    values = values.double()
    centred = values - values.mean(0)
    return centred if centred.norm() > FLAT * values.norm() else centred.zero_()
