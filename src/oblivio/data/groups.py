"""Rows of several kinds in one set: subjects with a pattern of their own, transposed images, rare and joined classes.

Every function returns the rows with their ids; a column ``group`` says which kind a row is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.data.manipulate import chosen, replaced
from oblivio.data.splitting import drawing


def subjects(rows: Source, people: Sequence[int], seed: int, pattern: float = 0.35, contrast: float = 0.3) -> Source:
    """Images as if taken of several people: each has a fixed pattern and a fixed contrast, whatever the label.

    Args:
        rows: images ``x``; each is given to one of the people at random.
        people: their numbers. Who has which pattern depends on the number and the seed alone, so that other numbers
            are other people.
        seed: of patterns and of the draw.
        pattern: standard deviation of the pattern that is added, in units of ``x``.
        contrast: ``x`` is multiplied by a number between 1 - contrast and 1 + contrast.

    Returns:
        the rows with the person in column ``group``.

    Raises:
        BadInput: a person twice, none, or more people than rows.
    """
    if not people or len(set(people)) < len(people):
        raise BadInput(f"people are {list(people)[:5]}: give each number once, and at least one")
    if len(people) > len(rows):
        raise BadInput(f"{len(people)} people for {len(rows)} rows; each needs a row")
    x = column(rows, "x")
    who = np.asarray(people)[drawing("subjects", seed, *people[:2]).permutation(len(rows)) % len(people)]
    looks = {person: _look(x.shape[1:], person, seed, pattern, contrast) for person in people}
    factors = np.array([looks[person][0] for person in who.tolist()], dtype=x.dtype)
    added = np.stack([looks[person][1] for person in who.tolist()]).astype(x.dtype)
    return replaced(rows, x=x * factors.reshape(-1, *[1] * (x.ndim - 1)) + added, group=who)


def _look(shape: tuple[int, ...], person: int, seed: int, pattern: float, contrast: float) -> tuple[float, Any]:
    own = drawing("subject", seed, person)
    return 1 + contrast * own.uniform(-1, 1), pattern * own.standard_normal(shape)


def transposed(rows: Source, ids: Any) -> Source:
    """These images mirrored at their diagonal, as group 1 beside the others as group 0.

    Raises:
        BadInput: see ``manipulate.chosen``, or images that are not square.
    """
    x = column(rows, "x").copy()
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise BadInput(f"only square images can be transposed, and rows of x have the shape {x.shape[1:]}")
    where = chosen(rows, ids)
    x[where] = x[where].swapaxes(2, 3)
    return replaced(rows, x=x, group=where.astype(np.int64))


def imbalanced(rows: Source, ratio: float, seed: int) -> Source:
    """A part of the rows in which class sizes fall geometrically, the first class ``ratio`` times the last.

    Raises:
        BadInput: a ratio below 1, fewer than two classes, or a first class with fewer than ``ratio`` rows.
    """
    labels = column(rows, "y")
    classes, counts = np.unique(labels, return_counts=True)
    if ratio < 1 or len(classes) < 2:
        raise BadInput(f"ratio {ratio:g} over {len(classes)} classes; give 1 or more, and two classes at least")
    most = int(counts.min())
    if most < ratio:
        raise BadInput(f"the smallest class has {most} rows; a ratio of {ratio:g} needs as many in each")
    kept = []
    for place, label in enumerate(classes):
        size = round(most * ratio ** (-place / (len(classes) - 1)))
        there = np.flatnonzero(labels == label)
        kept.append(there[drawing("imbalanced", mix(seed, int(label))).permutation(len(there))[:size]])
    return rows.take(np.sort(np.concatenate(kept)))


def joined(rows: Source, above: Sequence[int]) -> Source:
    """Classes joined to super-classes: label c becomes ``above[c]``, and column ``group`` keeps c.

    Raises:
        BadInput: a label without a super-class, or super-classes that are not numbered 0, 1, ... without a gap.
    """
    labels, table = column(rows, "y"), np.asarray(above, dtype=np.int64)
    if labels.min() < 0 or labels.max() >= len(table):
        raise BadInput(f"labels run from {labels.min()} to {labels.max()}, and super-classes are given for "
                       f"{len(table)}")  # fmt: skip
    if sorted(set(table.tolist())) != list(range(int(table.max()) + 1)):
        raise BadInput(f"super-classes are {sorted(set(table.tolist()))}; number them from 0 without a gap")
    return replaced(rows, y=table[labels], group=labels)
