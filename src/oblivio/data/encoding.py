"""Columns of a data frame as numbers: categories become codes, missing values stay visible as NaN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.data.columns import Field
from oblivio.data.dataset import Layout

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Values: TypeAlias = "np.ndarray[Any, Any]"
Words: TypeAlias = tuple[str, ...]

MOST_CATEGORIES = 1000
NUMBERS = {"integer", "floating", "mixed-integer-float", "boolean", "integer-na"}
TEXTS = {"string", "categorical", "empty"}


@dataclass(frozen=True)
class Coding:
    """How input columns become the columns of ``x``.

    Attributes:
        names: the columns in their order.
        words: for each its categories; empty for a column of numbers.
        missing: for each the number of missing values in the rows that the coding was made from.
    """

    names: tuple[str, ...]
    words: tuple[Words, ...]
    missing: tuple[int, ...]

    @property
    def layout(self) -> Layout:
        """What the fitted part of a model is built from."""
        return Layout(tuple(map(len, self.words)), tuple(i for i, count in enumerate(self.missing) if count))

    @property
    def fields(self) -> dict[str, Field]:
        """Where each column lies in ``x``."""
        return {name: Field("x", i, self.words[i] or None) for i, name in enumerate(self.names)}

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence a column with categories or missing values, and one on unseen categories."""
        each = zip(self.names, self.words, self.missing, strict=True)
        unseen = "a category that does not occur in the rows a model is trained on is all zeros to that model"
        return (*(_note(*column) for column in each if column[1] or column[2]), *([unseen] if any(self.words) else []))

    def encode(self, frame: DataFrame) -> Values:
        """float64, shape (rows, columns): numbers, codes 0, 1, ..., NaN where missing, -1 for an unknown category.

        float64, so that whole numbers and times stay exact where rows are selected by them; batches are float32.
        """
        each = (
            codes(frame[name], words) if words else numbers(frame[name])
            for name, words in zip(self.names, self.words, strict=True)
        )
        return np.stack(list(each), axis=1)


def coding(frame: DataFrame, names: Sequence[str], train: Values) -> Coding:
    """The coding of some columns: categories are those of the rows at ``train``, in alphabetical order.

    Raises:
        BadInput: a column that is neither numbers nor text, has no value in these rows, or has more than
            ``MOST_CATEGORIES`` categories.
    """
    rows = frame.iloc[train]
    words = tuple(() if is_numbers(frame[name]) else vocabulary(rows[name]) for name in names)
    for name, held in zip(names, words, strict=True):
        _check_column(rows[name], held)
    return Coding(tuple(names), words, tuple(int(rows[name].isna().sum()) for name in names))


def _check_column(series: Series[Any], words: Words) -> None:
    if series.isna().all():
        raise BadInput(f"column {series.name!r} has no value in any row to train on; leave it out")
    if len(words) > MOST_CATEGORIES:
        raise BadInput(
            f"column {series.name!r} holds {len(words):,} different texts, and categories end at {MOST_CATEGORIES:,}; "
            "leave it out, or give it the role id or group"
        )


def is_numbers(series: Series[Any]) -> bool:
    """Whether a column holds numbers or truth values (0 and 1), not text or categories.

    Raises:
        BadInput: it holds anything else, such as times, lists, or numbers here and text there.
    """
    from pandas.api import types

    held = types.infer_dtype(series, skipna=True)
    if held not in NUMBERS | TEXTS:
        raise BadInput(f"column {series.name!r} holds {held} values; turn it into numbers or text, or leave it out")
    return held in NUMBERS


def numbers(series: Series[Any]) -> Values:
    """float64, shape (rows,), NaN where missing."""
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def vocabulary(series: Series[Any]) -> Words:
    """The texts of a column: those that its type declares, in its order, else those that occur, sorted."""
    declared = getattr(series.dtype, "categories", None)
    return tuple(sorted(_text(series).dropna().unique())) if declared is None else tuple(map(str, declared))


def codes(series: Series[Any], words: Sequence[str]) -> Values:
    """The place of each text in ``words``, as float64: NaN where missing, -1 where it is none of them."""
    places = _text(series).map({word: place for place, word in enumerate(words)})
    return places.fillna(-1).where(series.notna()).to_numpy(dtype=np.float64)


def identities(series: Series[Any]) -> Values:
    """Ids as whole numbers where they are, else as text; a missing one is a BadInput."""
    if series.isna().any():
        raise BadInput(f"column {series.name!r} is the id, and row {int(series.isna().argmax())} has none")
    return whole(series) if is_whole(series) else _text(series).to_numpy(dtype=str)


def is_whole(series: Series[Any]) -> bool:
    """Whether a column holds whole numbers or truth values, none missing."""
    return is_numbers(series) and not series.isna().any() and bool((numbers(series) % 1 == 0).all())


def whole(series: Series[Any]) -> Values:
    """int64, shape (rows,), of a column of whole numbers."""
    return series.to_numpy(dtype=np.int64)


def _text(series: Series[Any]) -> Series[Any]:
    return series.astype(object).map(str, na_action="ignore")


def _note(name: str, words: Words, missing: int) -> str:
    if not words:
        return (
            f"{name}: {missing:,} missing values are replaced by the median of the rows that a model is trained "
            "on, and a column says which"
        )
    gap = f"; {missing:,} missing values are a category of their own" if missing else ""
    return f"{name}: {len(words):,} categories, one-hot{gap}"
