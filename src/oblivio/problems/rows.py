"""Set-ups in which nothing is manipulated: which rows go, out of which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data import groups, manipulate
from oblivio.data.columns import column
from oblivio.data.selection import Request, select, spec
from oblivio.data.splitting import drawing
from oblivio.problems.pool import Parts, Pool
from oblivio.problems.worst import Search, worst_ids


def request(pool: Pool, rows: Request) -> Parts:
    """Rows named as in a job: ``class=3``, ``{"random": 0.1}``, ``where=age > 60``."""
    return divided(pool, pool.train, select(pool.train, rows, pool.seed, pool.dataset.fields), str(spec(rows)))


def divided(pool: Pool, train: Source, places: Any, what: str, **parts: Any) -> Parts:
    """These places of ``train`` go and all others stay; test and held-out rows are the pool's unless given.

    Raises:
        BadInput: no row would stay, or none would go.
    """
    goes = np.zeros(len(train), dtype=bool)
    goes[places] = True
    if goes.all() or not goes.any():
        raise BadInput(f"{what} names {int(goes.sum())} of {len(train)} training rows; some must go and some stay")
    given = {"test": pool.test, "valid": pool.valid, **parts}
    return Parts(train=train, forget=train.take(goes), retain=train.take(~goes), **given)


def subclass(pool: Pool, fine: int, above: Sequence[int] | None = None) -> Parts:
    """A class within a super-class goes: the label of its rows stays in use.

    Args:
        pool: the rows.
        fine: number of the class that goes.
        above: of each class its super-class; None where labels are super-classes and column ``fine`` has the classes.
    """

    def grouped(rows: Source) -> Source:
        if above is not None:
            return groups.joined(rows, above)
        return manipulate.replaced(rows, group=column(rows, "fine"))

    train = grouped(pool.train)
    valid = None if pool.valid is None else grouped(pool.valid)
    goes = np.flatnonzero(column(train, "group") == fine)
    return divided(pool, train, goes, f"class {fine}", test=grouped(pool.test), valid=valid,
                   outputs=None if above is None else max(above) + 1)  # fmt: skip


def noisy(pool: Pool, wrong: float = 0.2, rows: Request | None = None) -> Parts:
    """A share of the labels is ``wrong`` and nobody knows; ``rows``, a random tenth by default, go."""
    ids = manipulate.draw(pool.train, round(wrong * len(pool.train)), pool.seed)
    train = manipulate.mislabel(pool.train, ids, pool.dataset.outputs, pool.seed)
    asked: Request = {"random": 0.1} if rows is None else rows
    return divided(pool, train, select(train, asked, pool.seed, pool.dataset.fields), str(spec(asked)))


def group(pool: Pool, minority: float = 0.2, share: float = 0.1, dominated: float = 0.9) -> Parts:
    """Of the rows that go, most are of the smaller of two groups, transposed images.

    Args:
        pool: the rows.
        minority: share of the images that are transposed, in training, held-out and test rows alike.
        share: of the training rows that go.
        dominated: share of these that are of the smaller group.
    """

    def grouped(rows: Source, which: int) -> Source:
        return groups.transposed(rows, manipulate.draw(rows, round(minority * len(rows)), pool.seed + which))

    train = grouped(pool.train, 0)
    small, count = column(train, "group") == 1, round(share * len(train))
    ids = [manipulate.draw(train, round(dominated * count), pool.seed, small),
           manipulate.draw(train, count - round(dominated * count), pool.seed, ~small)]  # fmt: skip
    goes = np.flatnonzero(manipulate.chosen(train, np.concatenate(ids)))
    valid = None if pool.valid is None else grouped(pool.valid, 1)
    return divided(pool, train, goes, f"share={share}", test=grouped(pool.test, 2), valid=valid)


def imbalanced(pool: Pool, ratio: float = 100, rows: Request | None = None) -> Parts:
    """Class sizes of the training rows fall by ``ratio``; ``rows``, a random tenth by default, go."""
    train = groups.imbalanced(pool.train, ratio, pool.seed)
    asked: Request = {"random": 0.1} if rows is None else rows
    return divided(pool, train, select(train, asked, pool.seed, pool.dataset.fields), str(spec(asked)))


def identity(pool: Pool, people: int = 60, gone: int = 6, others: int = 20, pattern: float = 0.35,
             contrast: float = 0.3) -> Parts:  # fmt: skip
    """``gone`` of the ``people`` in the training rows go; held-out and test rows are of ``others`` each, unseen."""

    def of(rows: Source, first: int, count: int) -> Source:
        return groups.subjects(rows, range(first, first + count), pool.seed, pattern, contrast)

    if not 0 < gone < people:
        raise BadInput(f"{gone} of {people} people are to go; some must go and some stay")
    train = of(pool.train, 0, people)
    going = drawing("people", pool.seed).permutation(people)[:gone]
    goes = np.flatnonzero(np.isin(column(train, "group"), going))
    valid = None if pool.valid is None else of(pool.valid, people, others)
    test = of(pool.test, people + others, others)
    return divided(pool, train, goes, f"{gone} people", test=test, valid=valid)


def worst(pool: Pool, share: float = 0.1, rounds: int = 10, epochs: int = 2, lr: float = 1e-3, lr_w: float = 1.0,
          gamma: float = 0.0, easiest: bool = False) -> Parts:  # fmt: skip
    """The rows that are hardest to forget go, or the easiest; see ``Search`` for the settings of the search."""
    search = Search(round(share * len(pool.train)), rounds, epochs, lr=lr, lr_w=lr_w, gamma=gamma, easiest=easiest)
    ids = worst_ids(pool.trainer, pool.train, pool.seed, search)
    return divided(pool, pool.train, np.flatnonzero(manipulate.chosen(pool.train, ids)), f"share={share}")
