"""Image folders: one subfolder a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from oblivio.core.errors import BadInput
from oblivio.data.columns import Field
from oblivio.data.dataset import Dataset
from oblivio.data.pictures import Files, Labelled, Pictures, Size, shape
from oblivio.data.splitting import Places, cut

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def folder(
    path: str | Path, *, size: Size = 32, channels: int = 3, test: float | str | Path = 0.2, seed: int = 0
) -> Dataset:
    """Read a folder of images, one subfolder a class; images are opened when they are read.

    Args:
        path: holds ``<class>/<any depth>/<image>``; classes are in alphabetical order.
        size: height and width in pixels that images are resized to; one number for both.
        channels: 3 for colour, 1 for grey.
        test: share of each class to test on, or another folder with the same classes.
        seed: of that split.

    Returns:
        a classification whose ids are paths relative to ``path`` (of test rows: to their own folder).

    Raises:
        BadInput: no such folder, no subfolders, a class without images, or test classes that differ.
    """
    listing = Listing.of(Path(path))
    if isinstance(test, (float, int)):
        train, held = (listing.take(p) for p in cut(len(listing.names), float(test), seed, listing.labels))
        how = f"drawn with equal shares of each class (seed {seed})"
    else:
        train, held, how = listing, Listing.of(Path(test)), "from a folder of their own"
        _check_same(train, held)
    height, width = shape(size)
    return Dataset(
        name=Path(path).name, train=train.source((height, width), channels),
        test=held.source((height, width), channels), task="classification", inputs=(channels, height, width),
        outputs=len(train.classes), classes=train.classes, fields={"class": Field("y", words=train.classes)},
        preprocess="channels",
        notes=(f"{len(train.names):,} images to train on and {len(held.names):,} to test, {how}",
               f"resized to {height} x {width}, {channels} channels, values 0 to 255 divided by 255; ids are relative "
               "paths"),
    )  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """The images of a folder: paths relative to it, the class number of each, the names of the classes."""

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: Places

    @classmethod
    def of(cls, root: Path) -> Listing:
        """All images below the subfolders of ``root``, in alphabetical order."""
        classes = _classes(root)
        names = [_images(root, c) for c in classes]
        labels = np.repeat(np.arange(len(classes)), [len(n) for n in names])
        return cls(root, classes, tuple(name for each in names for name in each), labels)

    def take(self, places: Places) -> Listing:
        """Some of the images."""
        return Listing(self.root, self.classes, tuple(self.names[i] for i in places), self.labels[places])

    def source(self, size: tuple[int, int], channels: int) -> Labelled:
        """The images as rows with ``x``, ``y`` and their paths as ids."""
        pictures = Pictures(Files(self.root, self.names), len(self.names), size, channels)
        return Labelled(pictures, {"y": torch.from_numpy(self.labels)}, np.array(self.names))


def _classes(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise BadInput(f"{root} is no folder")
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise BadInput(f"{root} has no subfolders; images of one class belong in a subfolder of its name")
    return tuple(names)


def _images(root: Path, name: str) -> list[str]:
    paths = sorted((root / name).rglob("*"))
    images = [p.relative_to(root).as_posix() for p in paths if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not images:
        raise BadInput(f"{root / name} holds no images ({', '.join(sorted(SUFFIXES))})")
    return images


def _check_same(train: Listing, test: Listing) -> None:
    if train.classes != test.classes:
        differ = sorted(set(train.classes) ^ set(test.classes))
        raise BadInput(f"{train.root} and {test.root} differ in the classes {', '.join(differ)}")
