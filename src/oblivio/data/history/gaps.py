"""Figures of a trace: accuracy after every update, which shows what evaluation at the end of tasks cannot.

``A[i, n]`` is the accuracy on task i at evaluation n, shape (tasks, evaluations), tasks in order of learning;
``ends[i]`` is the evaluation at the end of task i. The task being learned is the last, now is the last evaluation.
Entries before a task was first evaluated may be NaN and are not read; any other NaN is refused. More is better.
Source: De Lange, van de Ven and Tuytelaars, Continual evaluation for lifelong learning (2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.data.history.metrics import Array, Table, Values, finite


def min_acc(A: Table, ends: Sequence[int]) -> float:
    """min-ACC = 1/(k-1) sum_{i < k} min_{e_i < n} A[i, n]: the worst of every earlier task since it was learned."""
    table = traced(A, ends)
    if len(table) < 2:
        raise BadInput("min-ACC is about tasks before the last; the trace has one task")
    return float(np.mean([after(table, ends, i).min() for i in range(len(table) - 1)]))


def wc_acc(A: Table, ends: Sequence[int]) -> float:
    """WC-ACC = A[k, now] / k + (1 - 1/k) min-ACC: what the average accuracy is at least, whenever one looks.

    >>> round(wc_acc([[0.9, 0.4, 0.6, 0.7], [0.0, 0.3, 0.5, 0.8]], [0, 3]), 12)
    0.6
    """
    k, table = len(ends), traced(A, ends)
    now = float(finite("A", table[-1, -1:], (1,))[0])
    return now if k == 1 else now / k + (1 - 1 / k) * min_acc(A, ends)


def largest_drop(a: Values, window: int) -> float:
    """The largest a[m] - a[n] with m < n, both within ``window`` consecutive evaluations; at least 0."""
    values = finite("the trace", a, (len(a),))
    if window < 2:
        raise BadInput(f"a window of {window} evaluations has no change in it; take two or more")
    before = np.concatenate([np.full(window - 1, -np.inf), values])
    highest = np.lib.stride_tricks.sliding_window_view(before, window).max(1)  # of the window that ends at n
    return float((highest - values).max())  # a value is in its own window, so this is never below 0


def wf(A: Table, starts: Sequence[int], window: int) -> float:
    """Windowed forgetting WF_D: the mean over tasks of ``largest_drop``, each from its first evaluation ``starts``."""
    return float(np.mean([largest_drop(a, window) for a in _lines(A, starts)]))


def wp(A: Table, starts: Sequence[int], window: int) -> float:
    """Windowed plasticity WP_D: as ``wf`` with the largest rise."""
    return float(np.mean([largest_drop(-a, window) for a in _lines(A, starts)]))


def gap(a: Values, first: int | None = None) -> tuple[float, float]:
    """Depth and recovery of one task's gap at one switch.

    Args:
        a: accuracies from the evaluation before the switch to that at the end of the next task.
        first: how many evaluations after the switch the minimum is sought in (default: all).

    Returns:
        a[0] - minimum, and a[-1] - minimum.
    """
    values = finite("the trace", a, (len(a),))
    if len(values) < 2:
        raise BadInput("a gap needs the evaluation before the switch and one after it")
    least = float(values[1:][:first].min())
    return float(values[0]) - least, float(values[-1]) - least


def mean_gap(A: Table, ends: Sequence[int], first: int | None = None) -> tuple[float, float]:
    """Mean depth and recovery over every switch and every task learned before it."""
    table = traced(A, ends)
    pairs = [(i, k) for k in range(1, len(ends)) for i in range(k)]
    if not pairs:
        raise BadInput("a gap is about tasks before the last; the trace has one task")
    found = [gap(table[i, ends[k - 1] : ends[k] + 1], first) for i, k in pairs]
    return float(np.mean([depth for depth, _ in found])), float(np.mean([back for _, back in found]))


def curve(A: Table, ends: Sequence[int], b: int) -> Array:
    """Z of ``metrics.lca``: every task's accuracy at the end of the one before and at its first ``b`` evaluations.

    Shape (tasks, b+1). The first task's column 0 is evaluation 0, before its first batch.
    """
    table = traced(A, ends)
    starts = [0, *ends[:-1]]
    short = [i for i, (start, end) in enumerate(zip(starts, ends, strict=True)) if end - start < b]
    if short:
        raise BadInput(f"tasks {short} have fewer than {b} evaluations; take a smaller b")
    return np.array([table[i, start : start + b + 1] for i, start in enumerate(starts)])


def after(table: Array, ends: Sequence[int], i: int) -> Array:
    """Accuracies of task i after its own end. Raises BadInput where it was not evaluated since, or is NaN."""
    found = table[i, ends[i] + 1 :]
    if not len(found):
        raise BadInput(f"task {i} was not evaluated after its end")
    return finite("A", found, found.shape)


def traced(A: Table, ends: Sequence[int]) -> Array:
    """A trace with one end a task, ascending and inside. Raises BadInput for anything else."""
    table = np.asarray(A, dtype=np.float64)
    if table.ndim != 2 or len(table) != len(ends) or not table.size:
        raise BadInput(f"A has the shape {table.shape} for {len(ends)} ends; it needs one row a task")
    if list(ends) != sorted(set(ends)) or not 0 <= ends[0] <= ends[-1] < table.shape[1]:
        raise BadInput(f"ends are {list(ends)}; they must ascend and lie in {table.shape[1]} evaluations")
    return table


def _lines(A: Table, starts: Sequence[int]) -> list[Array]:
    """Every task's accuracies since it was first evaluated."""
    table = np.asarray(A, dtype=np.float64)
    if table.ndim != 2 or len(table) != len(starts) or not table.size:
        raise BadInput(f"A has the shape {table.shape} for {len(starts)} starts; it needs one row a task")
    return [row[start:] for row, start in zip(table, starts, strict=True)]
