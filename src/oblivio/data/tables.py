"""Tables whose columns have roles: CSV, Parquet, or a data frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data.columns import Field, Values
from oblivio.data.dataset import Dataset, Preprocess, Task, known_task
from oblivio.data.encoding import codes, coding, identities, is_whole, vocabulary, whole
from oblivio.data.extras import need
from oblivio.data.pictures import Files, Labelled, Pictures, Size, shape
from oblivio.data.roles import Roles, assign
from oblivio.data.splitting import Places, cut
from oblivio.data.targets import Targets, targets
from oblivio.sources import Tensors

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Halves: TypeAlias = tuple[Places, Places]  # places of the training and of the test rows
Open: TypeAlias = "Callable[[Series[Any]], Callable[[int], Any]]"  # from a column's values to images by place

FORMATS = {".csv": "read_csv", ".gz": "read_csv", ".parquet": "read_parquet"}


def table(
    path: str | Path,
    roles: Mapping[str, str],
    *,
    task: str,
    test: float | str | Path = 0.2,
    seed: int = 0,
    size: Size = 32,
) -> Dataset:
    """Read a table.

    Args:
        path: a ``.csv`` (or ``.csv.gz``) or ``.parquet`` file with column names.
        roles: column to ``input``, ``target``, ``id``, ``group`` or ``image`` (paths relative to the table). Where
            none is an input or image, every column without a role is an input; else those are left out.
        task: ``classification``, ``binary``, ``multilabel`` or ``regression``.
        test: share of the rows to test on (every class gets its share), or another file with the same columns.
        seed: of that split.
        size: height and width in pixels that images are resized to; one number for both.

    Returns:
        ``x`` holds raw numbers and category codes, NaN where missing; ``notes`` say what is done with them. Ids are
        the id column's, or positions in the file (those of a second file go on from the first).

    Raises:
        BadInput: a file that cannot be read, or roles and columns that do not fit each other.
    """
    path = Path(path)
    rows = Rows.of(read(path), read(Path(test)) if isinstance(test, (str, Path)) else test)
    return from_rows(path.name, rows, roles, known_task(task), seed, _files_in(path.parent), size)


def read(path: Path) -> DataFrame:
    """A data frame from a file; what cannot be read, or is empty, is a BadInput."""
    if path.suffix not in FORMATS:
        raise BadInput(f"{path} is no table: its name ends in none of {', '.join(FORMATS)}")
    pandas = need("pandas", "tables")
    try:
        frame = getattr(pandas, FORMATS[path.suffix])(path)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(f"{path} cannot be read as a table: {error}") from None
    if frame.empty:
        raise BadInput(f"{path} has no rows")
    return frame


@dataclass(frozen=True)
class Rows:
    """Rows of one frame: those to test on are last, ``test`` of them, or still to be drawn, a share of ``test``."""

    frame: DataFrame
    test: float | int

    @classmethod
    def of(cls, frame: DataFrame, test: float | DataFrame) -> Rows:
        """From one frame and a share, or from two frames with the same columns."""
        if isinstance(test, (float, int)):
            return cls(frame, float(test))
        if missing := [c for c in frame.columns if c not in test.columns]:
            raise BadInput(f"the table to test on lacks the columns {', '.join(map(repr, missing))}")
        return cls(need("pandas", "tables").concat([frame, test[frame.columns]], ignore_index=True), len(test))

    def cut(self, seed: int, strata: Values | None) -> Halves:
        """Places of the training and of the test rows."""
        if isinstance(self.test, float):
            return cut(len(self.frame), self.test, seed, strata)
        first = len(self.frame) - self.test
        return np.arange(first), np.arange(first, len(self.frame))


def from_rows(
    name: str, rows: Rows, roles: Mapping[str, str], task: Task, seed: int, images: Open, size: Size
) -> Dataset:
    """The data set that a frame with roles is; see ``table``. ``images`` opens what a column of images names."""
    frame, role = rows.frame, assign(list(rows.frame.columns), roles)
    found = targets(frame, role.targets, task)
    halves = rows.cut(seed, found.strata)
    ids = identities(frame[role.id]) if role.id else np.arange(len(frame))
    labels, fields = _labels(frame, found, role)
    if role.image:
        made = _pictured(frame[role.image], images, shape(size), halves, labels, ids)
    else:
        made = _coded(frame, role.inputs, halves, labels, ids)
    return Dataset(
        name=name, train=made.train, test=made.test, task=task, inputs=made.shape, outputs=found.outputs,
        classes=found.classes, fields={**made.fields, **fields}, preprocess=made.preprocess,
        notes=(_split_note(rows, halves, found, seed), *_role_notes(role), *made.notes),
    )  # fmt: skip


@dataclass(frozen=True)
class Made:
    """Sources with their ``x``, and what a Dataset says of it."""

    train: Source
    test: Source
    shape: tuple[int, ...]
    preprocess: Preprocess
    fields: Mapping[str, Field]
    notes: tuple[str, ...]


def _coded(frame: DataFrame, inputs: Sequence[str], halves: Halves, labels: Mapping[str, Tensor], ids: Values) -> Made:
    """Columns of numbers and categories; categories are those of the training rows."""
    how = coding(frame, inputs, halves[0])
    columns = {"x": torch.from_numpy(how.encode(frame)), **labels}
    train, test = (Tensors({k: v[places] for k, v in columns.items()}, ids[places]) for places in halves)
    return Made(train, test, (len(inputs),), how.layout, how.fields, how.notes)


def _pictured(
    column: Series[Any], images: Open, size: tuple[int, int], halves: Halves, labels: Mapping[str, Tensor], ids: Values
) -> Made:
    """Images that are opened when they are read."""
    train, test = (
        Labelled(Pictures(images(column.iloc[places]), len(places), size),
                 {k: v[places] for k, v in labels.items()}, ids[places])
        for places in halves
    )  # fmt: skip
    note = f"images of {column.name} resized to {size[0]} x {size[1]}, values 0 to 255 divided by 255"
    return Made(train, test, (3, *size), "channels", {}, (note,))


def _labels(frame: DataFrame, found: Targets, role: Roles) -> tuple[dict[str, Tensor], dict[str, Field]]:
    """The columns beside ``x``, and under which names they are found."""
    labels, fields = {"y": found.y}, dict(found.fields)
    if role.group:
        labels["group"], fields[role.group] = _grouped(frame[role.group])
    if role.id:
        fields[role.id] = Field("id")
    return labels, fields


def _grouped(series: Series[Any]) -> tuple[Tensor, Field]:
    """Groups as they are where they are whole numbers, else as codes of their text; -1 for none."""
    if is_whole(series):
        return torch.from_numpy(whole(series)), Field("group")
    words = vocabulary(series)
    return torch.from_numpy(np.nan_to_num(codes(series, words), nan=-1)).long(), Field("group", words=words)


def _files_in(root: Path) -> Open:
    def opened(names: Series[Any]) -> Files:
        paths = names.astype(str).tolist()
        if absent := [path for path in paths if not (root / path).is_file()]:
            raise BadInput(
                f"column {names.name!r} names {len(absent)} files that do not exist, first {root / absent[0]}"
            )
        return Files(root, paths)

    return opened


def _split_note(rows: Rows, halves: Halves, found: Targets, seed: int) -> str:
    how = "drawn at random" if found.strata is None else "drawn with equal shares of each class"
    how = f"{how} (seed {seed})" if isinstance(rows.test, float) else "from rows of their own"
    return f"{len(halves[0]):,} rows to train on and {len(halves[1]):,} to test, {how}"


def _role_notes(role: Roles) -> tuple[str, ...]:
    inputs = f"inputs: {', '.join(role.inputs)}; " if role.inputs else ""
    left_out = f"; left out: {', '.join(role.left_out)}" if role.left_out else ""
    return (f"{inputs}target: {', '.join(role.targets)}{left_out}",)
