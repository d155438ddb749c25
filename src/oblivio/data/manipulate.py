"""Rows that were tampered with: corner patches, swapped and wrong labels, and the part of them that is found out.

Every function takes rows and the ids of those to change, and returns all rows with their ids; nothing is changed in
place. A column ``known`` of ``revealed`` rows says 1 where a changed row was found out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.data.identity import places_of, shown
from oblivio.data.splitting import drawing
from oblivio.sources import Tensors

Array: TypeAlias = "np.ndarray[Any, Any]"


def chosen(rows: Source, ids: Any) -> Array:
    """Which rows have these ids: bool, shape (rows,).

    Raises:
        BadInput: no id, an id twice, or one that no row has; the message names the first ones.
    """
    wanted = np.asarray(ids)
    if wanted.ndim != 1 or not len(wanted):
        raise BadInput("no ids of rows to change: give at least one, in a list")
    values, counts = np.unique(wanted, return_counts=True)
    if (counts > 1).any():
        raise BadInput(f"ids of rows to change: {shown(values[counts > 1])} are given twice; name each row once")
    return np.asarray(places_of(rows.ids, wanted.tolist()))


def draw(rows: Source, count: int, seed: int, among: Any = None) -> Array:
    """The ids of ``count`` rows drawn at random.

    Args:
        rows: to draw from.
        count: how many; a greater number keeps the rows of a smaller one.
        seed: of the draw.
        among: only rows where this mask, shape (rows,), is true.

    Raises:
        BadInput: fewer than one, or more than there are.
    """
    ids = rows.ids if among is None else rows.ids[np.asarray(among, dtype=bool)]
    if not 1 <= count <= len(ids):
        raise BadInput(f"{count} rows are to be drawn from {len(ids)}; give a number from 1 to {len(ids)}")
    return np.asarray(ids[drawing("draw", seed).permutation(len(ids))[:count]])


def poison(rows: Source, ids: Any, target: int, size: int = 3, value: float = 1.0) -> Source:
    """A patch in the lower right corner of these images, and the label ``target``: a backdoor.

    Args:
        rows: images ``x`` (n, channels, height, width) and labels ``y`` (n,).
        ids: of the rows to change.
        target: the label that the patch is to bring about.
        size: side of the patch in pixels.
        value: of its pixels.

    Raises:
        BadInput: see ``chosen``; no images, a patch that is no part of them, or a label that no row has.
    """
    labels = column(rows, "y").copy()
    if target not in labels:
        raise BadInput(f"target {target} is the label of no row; labels are {shown(np.unique(labels))}")
    where = chosen(rows, ids)
    labels[where] = target
    return replaced(triggered(rows, ids, size, value), y=labels)


def triggered(rows: Source, ids: Any, size: int = 3, value: float = 1.0) -> Source:
    """The same patch on these images, their labels as they are; see ``poison``."""
    where, x = chosen(rows, ids), column(rows, "x").copy()
    if x.ndim != 4:
        raise BadInput(f"a patch needs images, and rows of x have the shape {x.shape[1:]}")
    if not 0 < size < min(x.shape[2:]):
        raise BadInput(f"a patch of {size} pixels a side does not fit in images of {x.shape[2]} x {x.shape[3]}")
    x[where, :, -size:, -size:] = value
    return replaced(rows, x=x)


def confuse(rows: Source, ids: Any, classes: tuple[int, int]) -> Source:
    """Labels of two classes swapped on these rows: interclass confusion.

    Raises:
        BadInput: see ``chosen``; equal classes, or a row of neither.
    """
    (one, other), where = classes, chosen(rows, ids)
    labels = column(rows, "y").copy()
    if one == other:
        raise BadInput(f"classes {one} and {other} are the same; two are needed to swap labels")
    if strange := sorted(set(labels[where].tolist()) - {one, other}):
        raise BadInput(f"rows to confuse have the labels {shown(np.array(strange))} beside {one} and {other}; leave "
                       "those rows out")  # fmt: skip
    labels[where] = one + other - labels[where]
    return replaced(rows, y=labels)


def mislabel(rows: Source, ids: Any, classes: int, seed: int) -> Source:
    """Each of these rows with a label drawn from the other ``classes``, the right one never among them.

    Raises:
        BadInput: see ``chosen``; fewer than two classes, or labels that are no numbers below ``classes``.
    """
    labels = column(rows, "y").copy()
    if classes < 2 or labels.min() < 0 or labels.max() >= classes:
        raise BadInput(f"labels run from {labels.min()} to {labels.max()}, which are not {classes} classes from 0 on")
    where = chosen(rows, ids)
    shift = drawing("mislabel", seed).randint(1, classes, int(where.sum()))
    labels[where] = (labels[where] + shift) % classes
    return replaced(rows, y=labels)


def reveal(ids: Any, share: float, seed: int) -> Array:
    """The ids of the part that is found out, at least one; a greater share keeps what a smaller one found.

    Raises:
        BadInput: an id twice, no id, or a share that is not above 0 and at most 1.
    """
    ids = np.asarray(ids)
    if not len(ids) or len(np.unique(ids)) < len(ids):
        raise BadInput(f"{len(ids)} ids, {len(np.unique(ids))} of them different: name each changed row once")
    if not 0 < share <= 1:
        raise BadInput(f"known = {share}: the share that is found out lies above 0 and is at most 1")
    return np.asarray(ids[drawing("reveal", seed).permutation(len(ids))[: max(1, round(share * len(ids)))]])


def flagged(rows: Source, name: str, ids: Any) -> Source:
    """All rows with a column ``name`` more: 1 for these ids, else 0."""
    return replaced(rows, **{name: chosen(rows, ids).astype(np.int64)})


def replaced(rows: Source, **columns: Any) -> Tensors:
    """The rows with these columns in place of theirs or beside them, and their ids."""
    names = [name for name in rows.columns if name not in columns]
    return Tensors({**{name: column(rows, name) for name in names}, **columns}, ids=rows.ids)


def only(rows: Source, names: Sequence[str] = ("x", "y")) -> Source:
    """The rows with these columns alone, where they have them."""
    if set(rows.columns) <= set(names):
        return rows
    return Tensors({name: column(rows, name) for name in rows.columns if name in names}, ids=rows.ids)
