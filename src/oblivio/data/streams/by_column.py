"""Streams whose experiences a column names: of tables, of the hub, of any data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput, nearest
from oblivio.data.columns import Field, Named, Values
from oblivio.data.dataset import Dataset, known_task
from oblivio.data.extras import need
from oblivio.data.hubs import from_splits
from oblivio.data.own import described
from oblivio.data.splitting import cut
from oblivio.data.streams.benchmarks import check_apart, own_outputs
from oblivio.data.streams.build import Marks, Pool, loaded, stream_of
from oblivio.data.streams.experience import Scenario, Stream, known_scenario
from oblivio.data.tables import Rows, from_rows
from oblivio.sources import Tensors


def experiences(
    of: Any,
    column: str,
    *,
    roles: Mapping[str, str] | None = None,
    task: str = "classification",
    test: str | float = 0.2,
    values: Sequence[Any] | None = None,
    scenario: str = "domain",
    valid: float = 0.0,
    seed: int = 0,
) -> Stream:
    """A stream with one experience for each value of a column: a session, a month, a hospital.

    Args:
        of: a ``Dataset`` or the name of one; a data frame, a data set or dictionary of splits of the ``datasets``
            library; or a mapping of columns, either with ``x`` and ``y`` (and ``id``), or of a table.
        column: that names the experience of a row, numbers or text.
        roles: of the columns of a table; see ``data.table``. ``column`` has the role group.
        task: what a table's rows are for; see ``data.table``.
        test: the share of each experience's rows to test on; of splits also the name of one. A ``Dataset`` has its own.
        values: of the column in the order in which they come, which need not be all; None: all, sorted.
        scenario: ``domain`` (``y`` as it is), ``class`` (as it is; no class in two experiences) or ``task`` (outputs of
            their own for every experience where their classes overlap).
        valid: share of the training rows of every class that goes to ``Experience.valid``.
        seed: of the draws of test and validation rows.

    Raises:
        BadInput: no such column or value (with the nearest), an experience without rows to train or to test on, a class
            in two experiences of the scenario ``class``, an unknown scenario, or what ``data.table`` refuses.

    Example:
        >>> import torch
        >>> from oblivio import data
        >>> rows = {"x": torch.randn(60, 4), "y": torch.arange(60) % 3, "month": ["May"] * 40 + ["June"] * 20}
        >>> [(e.name, len(e)) for e in data.experiences(rows, "month", values=["May", "June"]).train]
        [('May', 32), ('June', 16)]
    """
    known = known_scenario(scenario)
    pool = Pool(_dataset(of, column, roles or {}, task, test, seed), valid, seed)
    halves = [Named(half, pool.dataset.fields)[column] for half in (pool.dataset.train, pool.dataset.test)]
    wanted = _wanted(halves[0], column, values)
    places = [[np.flatnonzero(half == value) for value in wanted] for half in halves]
    table = _table(pool, known, [str(v) for v in wanted], places[0])
    marks, names = Marks(pool, known, table), [str(value) for value in wanted]
    return stream_of(
        pool, known,
        [marks.learn(at, t, names[t]) for t, at in enumerate(places[0])],
        [marks.measure(at, t, names[t]) for t, at in enumerate(places[1])],
        f"{pool.dataset.name} by {column}", {"kind": "experiences", "column": column, "values": names},
        outputs=_outputs(pool, known) if table is None else int(table.max()) + 1,
        labels=pool.dataset.classes if table is None else None,
    )  # fmt: skip


def _outputs(pool: Pool, scenario: Scenario) -> int:
    return pool.dataset.outputs if scenario == "domain" else pool.count


def _wanted(found: Values, column: str, values: Sequence[Any] | None) -> list[Any]:
    """The values of the column, one an experience."""
    known = np.unique(found).tolist()
    if values is None:
        return known
    for value in values:
        if value not in known:
            raise BadInput(
                f"column {column!r} has no training row with {value!r}{nearest(str(value), map(str, known))}"
            )
    if len(set(values)) < len(values):
        raise BadInput("values= has one value twice; every value is one experience")
    return list(values)


def _table(pool: Pool, scenario: Scenario, names: Sequence[str], places: Sequence[Values]) -> Tensor | None:
    """How labels are numbered; None: as they are."""
    if scenario == "domain":
        return None
    pool.check_classes(f"{scenario}-incremental")
    classes = [np.unique(pool.train[at]).tolist() for at in places]
    if scenario == "class":
        check_apart(names, classes)
        return None
    return own_outputs(range(len(names)), list(enumerate(classes)), pool.count)


# --- reading


def _dataset(of: Any, column: str, roles: Mapping[str, str], task: str, test: str | float, seed: int) -> Dataset:
    if isinstance(of, (Dataset, str, Path)):
        return loaded(of)
    roles = {**roles, column: "group"}
    if isinstance(of, Mapping) and "x" in of and "y" in of:
        return _tensors(of, column, test, seed)
    if hasattr(of, "to_pandas") or (isinstance(of, Mapping) and of and _is_split(next(iter(of.values())))):
        splits = of if isinstance(of, Mapping) else {"train": of}
        _check_column(next(iter(splits.values())).column_names, column)
        return from_splits("the data set", splits, roles, task=task, test=test, seed=seed)
    frame = _frame(of)
    _check_column(list(frame.columns), column)
    share = _share(test)
    return from_rows("the table", Rows(frame, share), roles, known_task(task), seed, _no_images, 32)


def _is_split(value: Any) -> bool:
    return hasattr(value, "to_pandas") and hasattr(value, "column_names")


def _frame(of: Any) -> Any:
    pandas = need("pandas", "tables")
    if isinstance(of, pandas.DataFrame):
        return of
    if isinstance(of, Mapping):
        return pandas.DataFrame(dict(of))
    raise BadInput(
        f"a {type(of).__name__} is no table; give a Dataset or its name, a data frame, a data set of the datasets "
        "library, or a mapping of columns"
    )


def _check_column(columns: Sequence[str], column: str) -> None:
    if column not in columns:
        raise BadInput(f"no column {column!r}{nearest(column, columns)}")


def _share(test: str | float) -> float:
    if isinstance(test, str):
        raise BadInput(f"test={test!r} names a split, and there are none; give the share of the rows to test on")
    return float(test)


def _no_images(names: Any) -> Any:
    raise BadInput(f"column {names.name!r} has the role image, which a table in memory cannot open; use data.load")


def _tensors(of: Mapping[str, Any], column: str, test: str | float, seed: int) -> Dataset:
    """Columns ``x``, ``y`` and the one that names the experience, cut in training and test rows by it."""
    _check_column(list(of), column)
    named = np.asarray(of[column])
    if named.ndim != 1 or len(named) != len(of["x"]):
        raise BadInput(
            f"column {column!r} has the shape {named.shape}; one value for each of {len(of['x'])} rows is needed"
        )
    words, codes = np.unique(named, return_inverse=True)
    rows = Tensors({"x": of["x"], "y": of["y"], "group": torch.from_numpy(codes)}, of.get("id"))
    halves = cut(len(rows), _share(test), seed, named)
    train, held = (rows.take(at) for at in halves)
    whole = described("the rows", train, held)
    fields = {column: Field("group", words=tuple(words.tolist()))}
    return Dataset(**{**vars(whole), "fields": fields})
