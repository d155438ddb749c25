"""What sources of rows share: their ids, and the places of a view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids


def checked(ids: Any, length: int) -> Ids | None:
    """One id a row as an array, or None for positions. Raises BadInput where their number is wrong or two are equal."""
    if ids is None:
        return None
    array = np.asarray(ids)
    if len(array) != length:
        raise BadInput(f"{len(array)} ids for {length} rows")
    if len(np.unique(array)) != length:
        values, counts = np.unique(array, return_counts=True)
        raise BadInput(f"ids must differ; {values[counts > 1][:5].tolist()} occur more than once")
    return array


def places(index: Any, length: int) -> Tensor:
    """Places or a boolean mask as places. Raises BadInput for one outside ``range(length)``."""
    at = torch.as_tensor(np.asarray(index) if isinstance(index, Sequence) else index)
    if at.dtype is torch.bool:
        at = at.nonzero().flatten()
    if len(at) and not (0 <= int(at.min()) and int(at.max()) < length):
        raise BadInput(f"row {int(at.max())} asked of a source of {length} rows")
    return at.long()


def identities(ids: Ids, rows: Tensor) -> Any:
    """The ids of these rows: a tensor where they are integers."""
    chosen = ids[rows.cpu().numpy()]
    return torch.from_numpy(chosen) if chosen.dtype.kind in "iu" else chosen


def among(known: Any, asked: Ids) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Of each id that is kept in a state (a tensor of integers, or a list of words), whether it is among ``asked``."""
    kept = np.array(known) if isinstance(known, list) else known.cpu().numpy()
    alike = asked.dtype.kind == kept.dtype.kind
    found: np.ndarray[Any, np.dtype[np.bool_]]
    found = np.isin(kept, asked) if alike else np.isin(kept.astype(str), asked.astype(str))
    return found
