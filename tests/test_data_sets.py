"""The data sets that are known by name: where they come from, what they hold, what is said when they are missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from oblivio import data
from oblivio.core.errors import BadInput
from oblivio.data import published
from oblivio.data.splitting import cut
from oblivio.modules.preprocess import Standardise
from oblivio.modules.table import TablePreprocess


def test_the_public_names_are_what_they_should_be_in_any_order() -> None:
    """Importing a submodule must not hide a public name of the same spelling."""
    code = (
        "import importlib, pkgutil, oblivio.data as d\n"
        "for m in pkgutil.iter_modules(d.__path__): importlib.import_module(f'oblivio.data.{m.name}')\n"
        "for _ in range(2):\n"
        "    for n in d.PUBLIC: assert callable(getattr(d, n)), n\n"
        "assert set(d.PUBLIC) <= set(dir(d))\n"
        "import sys; assert not {'pandas', 'datasets', 'PIL', 'sklearn'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="nothing"):
        data.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("name", "train", "test", "inputs", "outputs", "task", "module"),
    [
        ("digits", 1200, 597, (1, 8, 8), 10, "classification", Standardise),
        ("breast_cancer", 455, 114, (30,), 1, "binary", TablePreprocess),
        ("diabetes", 354, 88, (10,), 1, "regression", TablePreprocess),
    ],
)
def test_embedded(
    name: str, train: int, test: int, inputs: tuple[int, ...], outputs: int, task: str, module: Any
) -> None:
    found = data.load(name)
    assert (len(found.train), len(found.test), found.inputs, found.outputs) == (train, test, inputs, outputs)
    assert found.task == task
    assert not found.train.comparable(found.test) or not np.intersect1d(found.train.ids, found.test.ids).size
    for half in (found.train, found.test):
        data.check(half, name, task=found.task, outputs=outputs, inputs=inputs)
    x = found.train.batch(torch.arange(train))["x"]
    fitted = data.fit_preprocess(found.preprocess, found.train)
    assert isinstance(fitted, module)
    torch.testing.assert_close(fitted(x).double().mean(), torch.zeros(()).double(), atol=1e-5, rtol=0)
    assert found.licence
    assert found.notes
    assert json.loads(json.dumps(found.describe())) == found.describe()


def test_digits_are_in_range_and_every_class_has_its_share() -> None:
    digits = data.load("digits")
    x, y = (digits.train.batch(torch.arange(1200))[c] for c in ("x", "y"))
    assert (x.min(), x.max(), x.dtype, y.dtype) == (0, 1, torch.float32, torch.int64)
    whole = np.bincount([*y.tolist(), *digits.test.batch(torch.arange(597))["y"].tolist()])
    assert np.abs(np.bincount(y) - whole * 1200 / 1797).max() < 1
    assert digits.train.ids[:5].tolist() == data.load("digits").train.ids[:5].tolist() == [0, 1, 5, 8, 9]


def test_columns_are_found_by_their_names() -> None:
    cancer = data.load("breast_cancer")
    large = data.select(cancer.train, "where=`mean radius` > 20 and class == 'malignant'", fields=cancer.fields)
    x = cancer.train.batch(torch.from_numpy(large))["x"]
    assert (x[:, 0] > 20).all()
    assert len(data.select(cancer.train, "class=benign", fields=cancer.fields)) == 285


def test_fashion_mnist(data_folder: Path) -> None:
    found = data.load("fashion_mnist")
    assert (len(found.train), len(found.test), found.inputs, found.outputs) == (60_000, 10_000, (1, 28, 28), 10)
    forget, retain = data.split(found.train, "class=Bag", fields=found.fields)
    assert (len(forget), len(retain)) == (6000, 54_000)
    assert data.select(found.train, "class=8", fields=found.fields).tolist() == forget.ids.tolist()
    standardise = data.fit_preprocess(found.preprocess, found.train)
    assert isinstance(standardise, Standardise)
    assert standardise.mean.item() == pytest.approx(0.2860, abs=1e-4)  # the published constants
    assert standardise.std.item() == pytest.approx(0.3530, abs=1e-4)


def test_an_unknown_name_or_option_is_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'fashion_mnist'"):
        data.load("fashon_mnist")
    with pytest.raises(BadInput, match="'digits' takes no option 'seed'"):
        data.load("digits", seed=1)
    with pytest.raises(BadInput, match="needs roles and task"):
        data.load("people.csv")
    with pytest.raises(BadInput, match="takes no option 'role'; did you mean 'roles'"):
        data.load("people.csv", role={}, task="binary")


# --- published sets


def arrays(**more: Any) -> dict[str, Any]:
    pixels = np.arange(6 * 2 * 2 * 3).reshape(6, 2, 2, 3).astype(np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1], dtype=np.uint8)
    both = {f"{a}_{half}": v for half in ("train", "test") for a, v in (("x", pixels), ("y", labels))}
    return {**both, "class_names": np.array(["cat", "dog"]), **more}


def test_a_set_is_read_from_the_cache_with_its_own_ids(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OBLIVIO_DATA", raising=False)
    (own_cache / "data").mkdir()
    names = np.array([f"pic_{i}.png" for i in range(6)])
    coarse = np.array([1, 0, 1, 0, 1, 0], dtype=np.uint8)
    more = {
        f"{a}_{half}{b}": v
        for half in ("train", "test")
        for a, b, v in (("filename", "", names), ("y", "_coarse", coarse))
    }
    np.savez(own_cache / "data" / "cifar100_small.npz", **arrays(**more, coarse_names=np.array(["pet", "beast"])))
    found = data.load("cifar100_small")
    assert found.inputs == (3, 2, 2)
    assert found.train.ids[0] == "pic_0.png"
    expected = torch.from_numpy(arrays()["x_train"]).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(found.train.batch(torch.arange(6))["x"], expected)
    assert data.select(found.train, "where=coarse == 'pet'", fields=found.fields).tolist() == [1, 3, 5]


@pytest.mark.parametrize("content", [b"no archive", None])
def test_a_broken_file_is_refused(content: bytes | None, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBLIVIO_DATA", str(own_cache))
    if content is None:
        np.savez(own_cache / "mnist.npz", x_train=np.zeros(1))
    else:
        (own_cache / "mnist.npz").write_bytes(content)
    with pytest.raises(BadInput, match=r"cannot be read|lacks the arrays x_test, y_test, y_train"):
        data.load("mnist")


def test_what_the_hub_does_not_have_must_be_given(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OBLIVIO_DATA", raising=False)
    with pytest.raises(BadInput, match=r"cifar100_small.npz was not found.*OBLIVIO_DATA") as raised:
        data.load("cifar100_small")
    assert str(own_cache / "data") in str(raised.value)


def library(load_dataset: Any) -> Any:
    return lambda *_: SimpleNamespace(load_dataset=load_dataset)


def test_without_a_network_the_message_says_where_to_put_the_file(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: str) -> None:
        raise ConnectionError("no route")

    monkeypatch.delenv("OBLIVIO_DATA", raising=False)
    monkeypatch.setattr(published, "need", library(unreachable))
    with pytest.raises(
        BadInput, match=r"ylecun/mnist cannot be loaded from the hub \(ConnectionError\); put mnist.npz"
    ):
        data.load("mnist")


def test_without_the_extra_the_message_names_it(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OBLIVIO_DATA", raising=False)
    monkeypatch.setenv("OBLIVIO_CACHE", str(own_cache))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match=r"pip install 'oblivio\[hub\]'; or put mnist.npz"):
        data.load("mnist")


class Half:
    """What is used of a split of the hub."""

    def __init__(self, pixels: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self.features = {"label": SimpleNamespace(names=["cat", "dog"])}
        self.pixels, self.labels = pixels, labels

    def __getitem__(self, name: str) -> list[int]:
        return self.labels.tolist()  # type: ignore[no-any-return]

    def select(self, places: Any) -> Any:
        return ({"img": self.pixels[i]} for i in places)


def test_a_set_is_made_from_the_hub_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = arrays()["x_train"], arrays()["y_train"]
    monkeypatch.delenv("OBLIVIO_DATA", raising=False)
    monkeypatch.setenv("OBLIVIO_CACHE", str(own_cache))
    monkeypatch.setattr(
        published, "need", library(lambda _: {"train": Half(pixels, labels), "test": Half(pixels, labels)})
    )
    small = published.Published("few", "none", ids="idx", hub=("a/b", "img", "label"), each=(2, 1))
    monkeypatch.setitem(published.SETS, "cifar10_small", small)
    first = data.load("cifar10_small")
    assert first.train.ids.tolist() == [0, 1, 2, 3]  # the first two of each class
    assert first.test.ids.tolist() == [0, 1]
    monkeypatch.setattr(published, "need", None)
    again = data.load("cifar10_small")
    torch.testing.assert_close(again.train.batch(torch.arange(4))["x"], first.train.batch(torch.arange(4))["x"])


# --- splitting


def test_a_split_takes_its_share_of_each_stratum() -> None:
    strata = np.repeat(["a", "b", "c"], [70, 20, 10])
    train, test = cut(100, 0.2, seed=3, strata=strata)
    assert sorted([*train, *test]) == list(range(100))
    assert [int((strata[test] == s).sum()) for s in "abc"] == [14, 4, 2]
    assert test.tolist() == cut(100, 0.2, seed=3, strata=strata)[1].tolist()
    assert test.tolist() != cut(100, 0.2, seed=4, strata=strata)[1].tolist()


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001, 5.0, -1])
def test_a_split_has_two_sides(share: float) -> None:
    with pytest.raises(BadInput, match="leaves no row on one side"):
        cut(10, share, 0)
