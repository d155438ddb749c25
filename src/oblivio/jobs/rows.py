"""The rows of a job: what the original is trained on, what goes, what stays, what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.data.dataset import Dataset
from oblivio.data.duplicates import copies
from oblivio.data.identity import read_ids
from oblivio.data.selection import select, spec
from oblivio.data.splitting import cut
from oblivio.jobs.job import Forget


@dataclass(frozen=True)
class Rows:
    """``forget`` and ``retain`` together are ``train``; none of them is in ``valid``."""

    train: Source
    forget: Source
    retain: Source
    valid: Source | None
    test: Source
    notes: Sequence[str] = ()


def divide(dataset: Dataset, request: Forget, valid: float, seed: int) -> Rows:
    """Hold out the share ``valid`` of the training rows, then take what the request names out of the rest.

    What is held out depends on the seed alone, so that requests share an original. Rows that a request names by id and
    that are held out were never learned: a note says how many.

    Raises:
        BadInput: the request names no row, or leaves none.
    """
    train, held = hold_out(dataset, valid, seed)
    chosen, notes = _chosen(train, held, request.rows, dataset, seed)
    goes = np.zeros(len(train), dtype=bool)
    goes[chosen] = True
    twins = np.flatnonzero(~goes)[copies(train.take(goes), train.take(~goes))]
    if request.with_duplicates:
        goes[twins] = True
    if len(twins):
        notes = [*notes, duplicates(len(twins), request.with_duplicates)]
    if goes.all():
        raise BadInput(f"forget.rows = {spec(request.rows)} names all {len(train)} training rows; none would stay")
    return Rows(train, train.take(goes), train.take(~goes), held, dataset.test, notes)


def duplicates(count: int, moved: bool) -> str:
    """A sentence on retained rows with the content of forgotten ones."""
    if moved:
        return f"{count} rows with the same content as rows to forget are forgotten too"
    return (
        f"{count} retained rows have the same content as rows to forget; the model goes on knowing it "
        "(forget.with_duplicates, or --with-duplicates, forgets them too)"
    )


def hold_out(dataset: Dataset, valid: float, seed: int) -> tuple[Source, Source | None]:
    """The rows to train on, and those held out, each class giving its share; None where ``valid`` is 0."""
    if valid == 0:
        return dataset.train, None
    classes = column(dataset.train, "y") if dataset.task in ("classification", "binary") else None
    rest, held = cut(len(dataset.train), float(valid), seed, classes)
    return dataset.train.take(rest), dataset.train.take(held)


def _chosen(train: Source, held: Source | None, request: Any, dataset: Dataset, seed: int) -> tuple[Any, list[str]]:
    asked = spec(request)
    if asked.kind != "ids" or held is None:
        return select(train, request, seed, dataset.fields), []
    wanted = read_ids(asked.value) if isinstance(asked.value, str | Path) else asked.value
    wanted = list(wanted) if isinstance(wanted, list | tuple | set) else [wanted]
    never = set(map(str, held.ids.tolist()))
    learned = [i for i in wanted if str(i) not in never]
    if not learned:
        raise BadInput(f"all {len(wanted)} rows to forget are held out for validation: the original never saw them")
    note = f"{len(wanted) - len(learned)} of the rows named are held out for validation: the original never saw them"
    return select(train, {"ids": learned}, seed, dataset.fields), [note] * (len(learned) < len(wanted))
