"""Cutting one set of rows into training and test rows."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.core.seeds import mix

Places: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


def drawing(*keys: int | str) -> np.random.RandomState:
    """A generator whose numbers are the same in every version of NumPy, which promises that of this one alone."""
    return np.random.RandomState(mix(*keys) % 2**32)


def cut(length: int, test: float | int, seed: int, strata: Any = None) -> tuple[Places, Places]:
    """Places of the training and of the test rows, each in order.

    Args:
        length: number of rows.
        test: the share of test rows, between 0 and 1, or their number.
        seed: of the draw.
        strata: one value a row, shape (length,); every value gets its share of the test rows. None: no strata.

    Raises:
        BadInput: a side would be empty.
    """
    count = round(test * length) if isinstance(test, float) else test
    if not 0 < count < length:
        raise BadInput(f"test={test} of {length} rows leaves no row on one side; give a share between 0 and 1")
    drawn = np.sort(_spread(length, seed, strata)[:count])
    return np.setdiff1d(np.arange(length), drawn), drawn


def _spread(length: int, seed: int, strata: Any) -> Places:
    """A random order of which every beginning holds each stratum in proportion."""
    random = drawing("split", seed)
    order = random.permutation(length)
    if strata is None:
        return order
    _, code, counts = np.unique(np.asarray(strata)[order], return_inverse=True, return_counts=True)
    by_stratum = np.argsort(code, kind="stable")
    rank = np.empty(length)
    rank[by_stratum] = np.arange(length) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[np.argsort((rank + random.uniform(size=length)) / counts[code], kind="stable")]
