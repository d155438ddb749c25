"""Data sets whose classes are of different size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.data.dataset import Dataset
from oblivio.data.splitting import drawing
from oblivio.data.streams.build import Pool, loaded


def imbalanced(of: Dataset | str | Path, *, ratio: float = 100.0, order: int | None = None, seed: int = 0) -> Dataset:
    """The data set with a long tail: the class of rank r keeps the share ``ratio ** (-r / (C - 1))`` of its rows.

    Ranks are 0 to C - 1. The first class keeps all of its training rows, the last one ``1 / ratio`` (at least one row);
    test rows stay. Any stream can be made of it.

    Args:
        of: a data set whose rows have one class, or its name.
        ratio: of the largest share to the smallest, at least 1.
        order: seed of the ranks; None: the order of the labels.
        seed: of the rows that stay.

    Raises:
        BadInput: rows without classes, or a ratio below 1.

    Example:
        >>> from oblivio import data
        >>> stream = data.split(data.imbalanced("digits", ratio=10), tasks=5)
        >>> [len(experience) for experience in stream.train]
        [213, 128, 77, 46, 27]
    """
    pool = Pool(loaded(of))
    pool.check_classes("imbalanced")
    if not ratio >= 1 or not np.isfinite(ratio):
        raise BadInput(f"ratio={ratio}: the largest share is at least the smallest; give a number from 1")
    count = pool.count
    line = np.arange(count) if order is None else drawing("imbalance", order).permutation(count)
    kept = []
    for rank, c in enumerate(line.tolist()):
        rows = np.flatnonzero(pool.train == c)
        many = max(1, round(len(rows) * ratio ** (-rank / max(1, count - 1))))
        kept.append(drawing("imbalanced", seed, c).permutation(rows)[:many])
    dataset = pool.dataset
    note = f"classes thinned to a long tail of ratio {ratio:g} (order {order}, seed {seed})"
    return replace(
        dataset, name=f"imbalanced-{dataset.name}", train=dataset.train.take(np.sort(np.concatenate(kept))),
        notes=(*dataset.notes, note),
    )  # fmt: skip
