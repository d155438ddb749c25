"""Figures of an accuracy matrix, each by its one definition: definitions of the same name differ between papers.

``R[t, i]`` is the accuracy on task i after learning task t, T rows and T columns, in order of learning. Where less is
better (an error), give minus the error: every figure here takes more as better. A NaN is refused, never averaged.
Sources: Lopez-Paz and Ranzato (2017) for ACC, BWT, FWT; Chaudhry and others (2018, 2019) for FM, IM, LCA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Values: TypeAlias = "Sequence[float] | Array"
Table: TypeAlias = "Sequence[Sequence[float]] | Array"


def acc(R: Table) -> float:
    """ACC = 1/T sum_i R[T, i]: average accuracy after the last task.

    >>> round(acc([[0.9, 0.1, 0.1], [0.6, 0.8, 0.2], [0.7, 0.5, 0.9]]), 12)
    0.7
    """
    return float(averages(R)[-1])


def averages(R: Table, rows: Values | None = None) -> Array:
    """ACC_t = 1/t sum_{i <= t} R[t, i] of every t, shape (T,).

    ``rows``: how many test rows each task has; with them it is the accuracy over all rows of the tasks so far, which
    is another figure where tasks are of unequal size.
    """
    table = square(R)
    weights = np.ones(len(table)) if rows is None else finite("rows", rows, (len(table),))
    if bool((weights <= 0).any()):
        raise BadInput(f"rows: {weights.tolist()}; every task needs test rows")
    seen = np.tril(np.ones_like(table)) * weights
    return np.asarray((table * seen).sum(1) / seen.sum(1))


def aia(R: Table, rows: Values | None = None) -> float:
    """Average incremental accuracy AIA = 1/T sum_t ACC_t; with ``rows`` of the pooled ACC_t (see ``averages``)."""
    return float(averages(R, rows).mean())


def bwt(R: Table) -> float:
    """Backward transfer 1/(T-1) sum_{i < T} (R[T, i] - R[i, i]); below 0 where tasks were forgotten."""
    table = several(R, "BWT")
    return float((table[-1] - table.diagonal())[:-1].mean())


def forgetting(R: Table, clamped: bool = False) -> Array:
    """max_{i <= t < T} R[t, i] - R[T, i] of every task before the last, shape (T-1,).

    ``clamped`` takes the maximum over t <= T, which is never negative and so hides what later tasks improved.
    """
    table = several(R, "FM")
    last = len(table) if clamped else len(table) - 1
    return np.array([table[i:last, i].max() - table[-1, i] for i in range(len(table) - 1)])


def fm(R: Table, clamped: bool = False) -> float:
    """Forgetting measure: the mean of ``forgetting``. Never below -BWT."""
    return float(forgetting(R, clamped).mean())


def fwt(R: Table, b: Values) -> float:
    """Forward transfer 1/(T-1) sum_{i >= 2} (R[i-1, i] - b[i]); ``b``: accuracy of the untrained net on each task."""
    table = several(R, "FWT")
    before = finite("b", b, (len(table),))
    return float((np.diagonal(table, 1) - before[1:]).mean())


def la(R: Table) -> float:
    """Learning accuracy 1/T sum_i R[i, i]: on every task as soon as it was learned. ACC = LA + (T-1)/T BWT."""
    return float(square(R).diagonal().mean())


def intransigence(R: Table, J: Values) -> Array:
    """IM_t = J[t] - R[t, t], shape (T,); ``J[t]``: accuracy on task t of a model trained jointly on tasks 1 to t."""
    table = square(R)
    return finite("J", J, (len(table),)) - table.diagonal()


def plasticity(R: Table, S: Values) -> float:
    """mean_i (R[i, i] - S[i]); ``S[i]``: accuracy on task i of a net of its own."""
    table = square(R)
    return float((table.diagonal() - finite("S", S, (len(table),))).mean())


def slope(R: Table) -> float:
    """Least-squares slope of R[i, i] over i; below 0 where later tasks are learned worse: plasticity is being lost."""
    learned = several(R, "the slope").diagonal()
    i = np.arange(len(learned)) - (len(learned) - 1) / 2
    return float(i @ learned / (i @ i))


def lca(Z: Table) -> float:
    """Learning curve area LCA_b = 1/(b+1) sum_{j=0..b} mean_i Z[i, j].

    ``Z[i, j]``: accuracy on task i after its j-th batch, shape (tasks, b+1); column 0 is before the first.
    """
    return float(finite("Z", Z, None).mean(0).mean())


# --- what may be given


def finite(name: str, values: Any, shape: tuple[int, ...] | None) -> Array:
    """Numbers as an array. Raises BadInput for another shape (None: any table), and for NaN or infinite entries."""
    found = np.asarray(values, dtype=np.float64)
    if (found.ndim != 2 or not found.size) if shape is None else found.shape != shape:
        raise BadInput(f"{name} has the shape {found.shape}; it must be {shape or 'a table with rows and columns'}")
    if not np.isfinite(found).all():
        where = np.argwhere(~np.isfinite(found))[:3].tolist()
        raise BadInput(f"{name} has no number at {where}: evaluate every task that the figure needs")
    return found


def square(R: Table) -> Array:
    """An accuracy matrix, one row and one column a task. Raises BadInput for anything else, and for a NaN."""
    found = finite("R", R, None)
    if found.shape[0] != found.shape[1]:
        raise BadInput(f"R has the shape {found.shape}; it needs one row and one column a task")
    return found


def several(R: Table, figure: str) -> Array:
    """An accuracy matrix of two tasks or more, which ``figure`` needs."""
    found = square(R)
    if len(found) < 2:
        raise BadInput(f"{figure} compares tasks; R has one")
    return found
