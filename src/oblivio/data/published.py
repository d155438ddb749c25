"""Published image sets as one .npz file each: from OBLIVIO_DATA, from the user's cache, or made from the hub."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.files import write_bytes
from oblivio.data.columns import Field
from oblivio.data.dataset import Dataset
from oblivio.data.extras import need
from oblivio.sources import Tensors

Arrays: TypeAlias = Mapping[str, "np.ndarray[Any, Any]"]

DIGITS = tuple(str(c) for c in range(10))
CIFAR_LICENCE = "none stated by the authors, who ask for citation of the report"


@dataclass(frozen=True)
class Published:
    """What is known of a set beside its file.

    Attributes:
        origin: for the notes.
        licence: as stated by its source.
        classes: where the file does not name them.
        ids: the array that identifies a row (``_train`` or ``_test`` is added); None: the official position.
        hub: repository on the hub, its image and its label column; None where the hub has no such set.
        each: rows a class to take from the hub, for training and test; None: all.
    """

    origin: str
    licence: str
    classes: tuple[str, ...] | None = None
    ids: str | None = None
    hub: tuple[str, str, str] | None = None
    each: tuple[int, int] | None = None


SETS = {
    "mnist": Published(
        "MNIST (Y. LeCun, C. Cortes, C. Burges), official order",
        "commonly stated as CC BY-SA 3.0; the original page names none",
        classes=DIGITS, hub=("ylecun/mnist", "image", "label")),
    "fashion_mnist": Published(
        "Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf, 2017), official order", "MIT",
        hub=("zalando-datasets/fashion_mnist", "image", "label")),
    "cifar10": Published(
        "CIFAR-10 (A. Krizhevsky, 2009), official order", CIFAR_LICENCE, hub=("uoft-cs/cifar10", "img", "label")),
    "cifar100": Published(
        "CIFAR-100 (A. Krizhevsky, 2009), official order", CIFAR_LICENCE,
        hub=("uoft-cs/cifar100", "img", "fine_label")),
    "cifar10_small": Published(
        "CIFAR-10 (A. Krizhevsky, 2009): of each class the first 1,500 training and 300 test images in official order",
        CIFAR_LICENCE, ids="idx", hub=("uoft-cs/cifar10", "img", "label"), each=(1500, 300)),
    "cifar100_small": Published(
        "CIFAR-100 (A. Krizhevsky, 2009): a fixed draw of 120 training and 30 test images of each class",
        CIFAR_LICENCE, ids="filename"),
}  # fmt: skip


def published(name: str) -> Dataset:
    """Load one of ``SETS``: images as float32 (n, channels, height, width) in [0, 1].

    Raises:
        BadInput: the file is nowhere, or is not what it should be; the message says where it was looked for.
    """
    known = SETS[name]
    path = _found(name)
    arrays = _read(path)
    train, test = (_rows(arrays, half, known.ids) for half in ("train", "test"))
    classes = known.classes or tuple(arrays["class_names"].tolist())
    fields = {"class": Field("y", words=classes)}
    if "coarse_names" in arrays:
        fields["coarse"] = Field("coarse", words=tuple(arrays["coarse_names"].tolist()))
    return Dataset(
        name=name, train=train, test=test, task="classification", inputs=tuple(train.data["x"].shape[1:]),
        outputs=len(classes), classes=classes, fields=fields, preprocess="channels", licence=known.licence,
        notes=(known.origin, "values 0 to 255 divided by 255; the split is the published one",
               f"ids are {_id_note(known.ids)}"),
    )  # fmt: skip


def _id_note(ids: str | None) -> str:
    return {"idx": "positions in the official set", "filename": "official file names"}.get(ids or "", "positions")


def _rows(arrays: Arrays, half: str, ids: str | None) -> Tensors:
    columns = {"x": _images(arrays[f"x_{half}"]), "y": torch.from_numpy(arrays[f"y_{half}"]).long()}
    if f"y_{half}_coarse" in arrays:
        columns["coarse"] = torch.from_numpy(arrays[f"y_{half}_coarse"]).long()
    return Tensors(columns, ids=None if ids is None else arrays[f"{ids}_{half}"])


def _images(pixels: np.ndarray[Any, Any]) -> Tensor:
    """uint8 (n, H, W) or (n, H, W, C) to float32 (n, C, H, W)."""
    x = torch.from_numpy(pixels)
    x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return x.float().contiguous().div_(255)


def _read(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} cannot be read: {error}; remove it, or get it again") from None
    if missing := {"x_train", "y_train", "x_test", "y_test"} - set(arrays):
        raise BadInput(f"{path} lacks the arrays {', '.join(sorted(missing))}; remove it, or get it again")
    return arrays


# --- finding


def cache() -> Path:
    """The user's folder for data: ``data`` in OBLIVIO_CACHE, or in ~/.cache/oblivio."""
    root = os.environ.get("OBLIVIO_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "oblivio") / "data"


def _found(name: str) -> Path:
    """The file of a set; made from the hub where it is nowhere."""
    given = os.environ.get("OBLIVIO_DATA")
    folders = [Path(given)] if given else []
    for folder in (*folders, cache()):
        if (path := folder / f"{name}.npz").is_file():
            return path
    return _downloaded(name)


def _downloaded(name: str) -> Path:
    known, path = SETS[name], cache() / f"{name}.npz"
    place = f"put {name}.npz in the folder that OBLIVIO_DATA names, or in {cache()}"
    if known.hub is None:
        raise BadInput(f"{name}.npz was not found, and the hub does not have this draw; {place}")
    try:
        arrays = _from_hub(known.hub, known.each)
    except BadInput as error:
        raise BadInput(f"{name}.npz was not found: {error}; or {place}") from None
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such set, a hub that answers oddly
        raise BadInput(
            f"{name}.npz was not found, and {known.hub[0]} cannot be loaded from the hub "
            f"({type(error).__name__}); {place}"
        ) from None
    _write(path, arrays)
    return path


def _write(path: Path, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stubs take a name for a flag
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error}; let OBLIVIO_CACHE name a folder that can") from None


def _from_hub(hub: tuple[str, str, str], each: tuple[int, int] | None) -> dict[str, Any]:
    repository, image, label = hub
    halves = need("datasets", "hub").load_dataset(repository)
    arrays: dict[str, Any] = {"class_names": np.array(halves["train"].features[label].names)}
    for i, half in enumerate(("train", "test")):
        y = np.array(halves[half][label], dtype=np.uint8)
        places = np.arange(len(y)) if each is None else _first_of_each(y, each[i])
        rows = halves[half].select(places)
        arrays |= {
            f"x_{half}": np.stack([np.array(row[image]) for row in rows]),
            f"y_{half}": y[places],
            f"idx_{half}": places.astype(np.int32),
        }
    return arrays


def _first_of_each(y: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    return np.sort(np.concatenate([np.flatnonzero(y == c)[:count] for c in np.unique(y)]))
