"""Set-ups in which training rows were manipulated and only a part of them is found out; the rest stays in ``retain``.

References are trained without any manipulated row. ``affected`` holds the manipulated rows with their true labels and
a column ``known``; held-out and test rows are as they should be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data import manipulate
from oblivio.data.columns import column
from oblivio.problems.pool import Parts, Pool


def patch(pool: Pool, share: float = 0.05, known: float = 0.3, target: int = 0, size: int = 3) -> Parts:
    """A backdoor: a corner patch of ``size`` pixels a side brings about the label ``target``.

    Args:
        pool: the rows.
        share: of the training rows that are poisoned, all of them of other classes.
        known: share of these that is found out.
        target: label of the backdoor.
        size: of the patch.

    Returns:
        parts with a source ``triggered``: test rows of other classes with the patch, and their true labels.
    """
    others = column(pool.train, "y") != target
    ids = manipulate.draw(pool.train, _count(share, pool.train), pool.seed, others)
    train = manipulate.poison(pool.train, ids, target, size)
    test = pool.test.take(column(pool.test, "y") != target)
    true = manipulate.triggered(pool.train, ids, size)
    return _found_out(pool, train, true, ids, known, triggered=manipulate.triggered(test, test.ids, size))


def labels(pool: Pool, share: float = 0.1, known: float = 0.5) -> Parts:
    """Wrong labels, each drawn from the other classes, on a ``share`` of the training rows."""
    ids = manipulate.draw(pool.train, _count(share, pool.train), pool.seed)
    train = manipulate.mislabel(pool.train, ids, pool.dataset.outputs, pool.seed)
    return _found_out(pool, train, pool.train, ids, known)


def confused(pool: Pool, classes: Sequence[int], share: float = 0.3, known: float = 0.5) -> Parts:
    """Labels of two ``classes`` are swapped on a ``share`` of the rows of each."""
    one, other = classes
    y = column(pool.train, "y")
    ids = np.concatenate([
        manipulate.draw(pool.train, round(share * int((y == c).sum())), pool.seed, y == c) for c in (one, other)
    ])  # fmt: skip
    train = manipulate.confuse(pool.train, ids, (one, other))
    return _found_out(pool, train, pool.train, ids, known)


def _count(share: float, rows: Source) -> int:
    if not 0 < share < 1:
        raise BadInput(f"share = {share}: the share of manipulated rows lies between 0 and 1")
    return max(1, round(share * len(rows)))


def _found_out(pool: Pool, train: Source, true: Source, ids: np.ndarray, known: float, **more: Source) -> Parts:
    """``train`` with manipulated rows ``ids``, a part of which goes; ``true`` has the same rows with true labels."""
    found = manipulate.reveal(ids, known, pool.seed)
    goes, bad = manipulate.chosen(train, found), manipulate.chosen(train, ids)
    train, true = manipulate.flagged(train, "known", found), manipulate.flagged(true, "known", found)
    return Parts(train=train, forget=train.take(goes), retain=train.take(~goes), never=train.take(~bad),
                 test=pool.test, valid=pool.valid, more={"affected": true.take(bad), **more})  # fmt: skip
