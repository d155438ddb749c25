"""The data sets that come with scikit-learn: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from oblivio.core.source import Tensors
from oblivio.data.columns import Field
from oblivio.data.dataset import Dataset, Layout
from oblivio.data.splitting import cut

DIGITS_TEST = 597  # of 1,797, which leaves a round number to train on
TEST = 0.2
SEED = 0
UCI = "CC BY 4.0 (UCI Machine Learning Repository)"


def digits() -> Dataset:
    """Handwritten digits, 1,797 images of 8 x 8: 1,200 to train on, 597 to test; classification."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.from_numpy(found.images / 16).float().unsqueeze(1)
    train, test = _halves({"x": x, "y": torch.from_numpy(found.target).long()}, DIGITS_TEST, found.target)
    classes = tuple(str(c) for c in range(10))
    return Dataset(
        "digits", train, test, "classification", (1, 8, 8), 10, classes, {"class": Field("y", words=classes)}, "channels",
        ("Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, UCI), its test part as scikit-learn "
         "ships it; grey values 0 to 16 divided by 16", _split_note(train, test, "stratified by class")), UCI,
    )  # fmt: skip


def breast_cancer() -> Dataset:
    """Breast cancer Wisconsin (diagnostic), 569 rows of 30 measurements: malignant (0) or benign (1); binary."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    columns = {"x": found.data, "y": torch.from_numpy(found.target).long()}
    train, test = _halves(columns, TEST, found.target)
    classes = tuple(found.target_names.tolist())
    return Dataset(
        "breast_cancer", train, test, "binary", (30,), 1, classes,
        {**_measured(found.feature_names), "class": Field("y", words=classes)}, Layout((0,) * 30),
        ("Breast Cancer Wisconsin, diagnostic (W. Wolberg, O. Mangasarian, N. Street, UCI); no values are missing",
         _split_note(train, test, "stratified by class")), UCI,
    )  # fmt: skip


def diabetes() -> Dataset:
    """Diabetes progression after a year (25 to 346) from ten measurements of 442 patients; regression."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    train, test = _halves({"x": found.data, "y": torch.from_numpy(found.target).float()}, TEST, None)
    return Dataset(
        "diabetes", train, test, "regression", (10,), 1, None, _measured(found.feature_names), Layout((0,) * 10),
        ("Diabetes (B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Least Angle Regression, 2004), measurements and "
         "target in their own units; no values are missing", _split_note(train, test, "drawn at random")),
        "none stated by the authors",
    )  # fmt: skip


def _halves(columns: dict[str, Any], test: float | int, strata: Any) -> tuple[Tensors, Tensors]:
    """Training and test rows; ids are positions in the whole set, so that no id is in both."""
    rows = Tensors(columns)
    train, test_rows = cut(len(rows), test, SEED, strata)
    return rows.take(train), rows.take(test_rows)


def _measured(names: Sequence[str]) -> dict[str, Field]:
    return {str(name): Field("x", place) for place, name in enumerate(names)}


def _split_note(train: Tensors, test: Tensors, how: str) -> str:
    return (
        f"{len(train):,} rows to train on and {len(test):,} to test, {how} once and for all (seed {SEED}); "
        "ids are positions in the whole set"
    )
