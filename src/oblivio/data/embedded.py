"""The data sets that come with scikit-learn: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from oblivio.data.columns import Field
from oblivio.data.dataset import Dataset, Layout
from oblivio.data.splitting import cut
from oblivio.sources import Tensors

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
    origin = (
        "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, UCI), as scikit-learn ships its test part"
    )
    return Dataset(
        name="digits", train=train, test=test, task="classification", inputs=(1, 8, 8), outputs=10, classes=classes,
        fields={"class": Field("y", words=classes)}, preprocess="channels",
        notes=(origin, "grey values 0 to 16 divided by 16", _split_note(train, test, "stratified by class")),
        licence=UCI,
    )  # fmt: skip


def breast_cancer() -> Dataset:
    """Breast cancer Wisconsin (diagnostic), 569 rows of 30 measurements: malignant (0) or benign (1); binary."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    train, test = _halves({"x": found.data, "y": torch.from_numpy(found.target).long()}, TEST, found.target)
    classes = tuple(found.target_names.tolist())
    origin = "Breast Cancer Wisconsin, diagnostic (W. Wolberg, O. Mangasarian, N. Street, UCI)"
    return Dataset(
        name="breast_cancer", train=train, test=test, task="binary", inputs=(30,), outputs=1, classes=classes,
        fields={**_measured(found.feature_names), "class": Field("y", words=classes)}, preprocess=Layout((0,) * 30),
        notes=(origin, "no values are missing", _split_note(train, test, "stratified by class")), licence=UCI,
    )  # fmt: skip


def diabetes() -> Dataset:
    """Diabetes progression after a year (25 to 346) from ten measurements of 442 patients; regression."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    train, test = _halves({"x": found.data, "y": torch.from_numpy(found.target).float()}, TEST, None)
    origin = "Diabetes (B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Least Angle Regression, 2004)"
    return Dataset(
        name="diabetes", train=train, test=test, task="regression", inputs=(10,), outputs=1,
        fields=_measured(found.feature_names), preprocess=Layout((0,) * 10),
        notes=(origin, "measurements and target in their own units; no values are missing",
               _split_note(train, test, "drawn at random")),
        licence="none stated by the authors",
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
