"""Data sets of the hub, or saved by the ``datasets`` library, under any column names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblivio.core.errors import BadInput, nearest
from oblivio.data.columns import Values
from oblivio.data.dataset import Dataset, known_task
from oblivio.data.extras import need
from oblivio.data.pictures import Size
from oblivio.data.tables import Rows, from_rows

if TYPE_CHECKING:
    from datasets import Dataset as Split
    from pandas import DataFrame, Series


def hub(
    name: str,
    roles: Mapping[str, str],
    *,
    task: str,
    train: str = "train",
    test: str | float = "test",
    seed: int = 0,
    size: Size = 32,
) -> Dataset:
    """Read a data set through the ``datasets`` library.

    Args:
        name: a repository of the hub, a folder that ``save_to_disk`` wrote, or a folder of parquet or CSV files.
        roles: column to ``input``, ``target``, ``id``, ``group`` or ``image``; see ``table``.
        task: ``classification``, ``binary``, ``multilabel`` or ``regression``.
        train: the split to train on.
        test: the split to test on, or the share of the rows of ``train`` to draw for it.
        seed: of that draw.
        size: height and width in pixels that images are resized to; one number for both.

    Returns:
        what ``table`` returns; class labels keep the hub's numbers, and images are decoded when they are read.

    Raises:
        BadInput: the extra is absent, the set cannot be loaded, a split is missing, or roles and columns do not fit.
    """
    return from_splits(name, _loaded(name, train), roles, task=task, train=train, test=test, seed=seed, size=size)


def from_splits(
    name: str,
    splits: Mapping[str, Split],
    roles: Mapping[str, str],
    *,
    task: str,
    train: str = "train",
    test: str | float = "test",
    seed: int = 0,
    size: Size = 32,
) -> Dataset:
    """As ``hub``, of splits that are loaded: what the ``datasets`` library calls a DatasetDict."""
    first = _split(name, splits, train)
    second = None if isinstance(test, (float, int)) else _split(name, splits, test)
    rows = first if second is None else _joined(first, second)
    _check_readable(rows, roles)
    return from_rows(
        name,
        Rows(_frame(rows), float(test) if second is None else len(second)),
        roles,
        known_task(task),
        seed,
        _opener(rows),
        size,
    )


def _loaded(name: str, only: str) -> Mapping[str, Split]:
    """All splits; a set saved without splits is called ``only``."""
    library = need("datasets", "hub")
    saved = any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        found = library.load_from_disk(name) if saved else library.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such set, a set that needs code
        raise BadInput(
            f"{name!r} cannot be loaded by datasets: {error}; without a network, give a folder that save_to_disk wrote"
        ) from None
    return {only: found} if isinstance(found, library.Dataset) else found


def _split(name: str, splits: Mapping[str, Split], split: str) -> Split:
    if split not in splits:
        raise BadInput(f"{name!r} has no split {split!r}{nearest(split, splits)}; a share such as test=0.2 draws one")
    return splits[split]


def _joined(train: Split, test: Split) -> Split:
    try:
        joined: Split = need("datasets", "hub").concatenate_datasets([train, test])
    except ValueError as error:
        raise BadInput(f"the splits to train and to test on have different columns: {error}") from None
    return joined


def _check_readable(rows: Split, roles: Mapping[str, str]) -> None:
    for column in set(roles) & (set(rows.column_names) - set(_kinds(rows))):
        raise BadInput(
            f"column {column!r} holds {rows.features[column]}; numbers, text, class labels and images are read"
        )
    for column, kind in _kinds(rows).items():
        if (kind == "Image") != (roles.get(column) == "image") and column in roles:
            raise BadInput(f"column {column!r} holds {kind}, which does not suit the role {roles[column]!r}")


def _kinds(rows: Split) -> dict[str, str]:
    """The columns that can be read, and what they hold: Value, ClassLabel or Image."""
    kinds = {name: type(feature).__name__ for name, feature in rows.features.items()}
    return {name: kind for name, kind in kinds.items() if kind in ("Value", "ClassLabel", "Image")}


def _frame(rows: Split) -> DataFrame:
    """The columns as a frame: class labels as categories in their order, images as their places in ``rows``."""
    pandas = need("pandas", "tables")
    kinds = _kinds(rows)
    frame: DataFrame = rows.select_columns([c for c, kind in kinds.items() if kind != "Image"]).to_pandas()
    for column, kind in kinds.items():
        if kind == "ClassLabel":
            places = frame[column].fillna(-1).astype(int)
            frame[column] = pandas.Categorical.from_codes(places, categories=rows.features[column].names)
        elif kind == "Image":
            frame[column] = range(len(rows))
    return frame


def _opener(rows: Split) -> Callable[[Series[Any]], Callable[[int], Any]]:
    return lambda places: HubImages(rows, str(places.name), places.to_numpy())


class HubImages:
    """Decodes the images of a column of ``rows`` at some ``places`` of it."""

    def __init__(self, rows: Split, column: str, places: Values) -> None:
        self.rows, self.column, self.places = rows.select_columns([column]), column, places

    def __call__(self, place: int) -> Any:
        """The PIL image at ``place``."""
        return self.rows[int(self.places[place])][self.column]
