"""The rows of a job: what the original is trained on, what goes, what stays, what is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.data.dataset import Dataset
from oblivio.data.duplicates import copies
from oblivio.data.identity import read_ids, shown
from oblivio.data.selection import select, spec
from oblivio.data.splitting import cut
from oblivio.jobs.job import Forget
from oblivio.sources import Tensors

PROXIES = 1000


@dataclass(frozen=True)
class Rows:
    """``forget`` and ``retain`` together are ``train``; none of them is in ``valid``."""

    train: Source
    forget: Source
    retain: Source
    valid: Source | None
    test: Source
    notes: Sequence[str] = ()


def divide(dataset: Dataset, request: Forget, valid: float, seed: int, without: str | Sequence[Any] = ()) -> Rows:
    """Hold out the share ``valid`` of the training rows, then take what the request names out of the rest.

    What is held out depends on the seed alone, so that requests share an original. Rows that a request names by id and
    that are held out, or test rows, were never learned: a note says how many. ``without`` are ids of rows that were
    forgotten before, which are then no training rows any more, or a file of them.

    Raises:
        BadInput: the request names no row, or leaves none; an id in ``without`` that no training row has.
    """
    train, held = hold_out(dataset, valid, seed)
    if len(without):
        train = remaining(train, read_ids(without) if isinstance(without, str) else without)
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


def remaining(train: Source, without: Sequence[Any]) -> Source:
    """The rows but for these. Raises BadInput for an id that none of them has."""
    gone = np.array(list(map(str, without)))
    strange = gone[~np.isin(gone, train.ids.astype(str))]
    if len(strange):
        raise BadInput(f"data.without: ids {shown(strange)} are of no training row")
    return train.take(~np.isin(train.ids.astype(str), gone))


def stand_ins(dataset: Dataset) -> Source:
    """The inputs of test rows without their labels, at most ``PROXIES``; their ids are no other rows' ids."""
    return Tensors({"x": column(dataset.test, "x")[:PROXIES]})


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
    if asked.kind != "ids":
        return select(train, request, seed, dataset.fields), []
    wanted = read_ids(asked.value) if isinstance(asked.value, str | Path) else asked.value
    wanted = list(wanted) if isinstance(wanted, list | tuple | set) else [wanted]
    never = _never_learned(train, {"held out for validation": held, "test rows": dataset.test})
    learned = [i for i in wanted if str(i) not in never]
    if wanted and not learned:
        kinds = dict.fromkeys(never[str(i)] for i in wanted)
        raise BadInput(f"all {len(wanted)} rows to forget are {' or '.join(kinds)}: the original never saw them")
    counts = Counter(never[str(i)] for i in wanted if str(i) in never)
    notes = [f"{n} of the rows named are {kind}: the original never saw them" for kind, n in counts.items()]
    return select(train, {"ids": learned}, seed, dataset.fields), notes


def _never_learned(train: Source, others: Mapping[str, Source | None]) -> dict[str, str]:
    """The ids that only rows beside the training rows have, each with what these rows are."""
    known = set(map(str, train.ids.tolist()))
    beside = {kind: rows for kind, rows in others.items() if rows is not None and rows.comparable(train)}
    return {str(i): kind for kind, rows in beside.items() for i in rows.ids.tolist() if str(i) not in known}
