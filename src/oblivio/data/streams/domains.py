"""Streams in which the inputs change from task to task and the classes stay: permuted, rotated, other domains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator
from oblivio.data.dataset import Dataset, Layout
from oblivio.data.streams.build import Marks, Pool, loaded, stream_of
from oblivio.data.streams.changes import CHANGES, Permute, Rotate, change, identity
from oblivio.data.streams.experience import Scenario, Stream, known_scenario
from oblivio.sources.marked import Change


def permuted(
    of: Dataset | str | Path,
    *,
    tasks: int = 10,
    scenario: str = "domain",
    order: int = 0,
    valid: float = 0.0,
    seed: int = 0,
) -> Stream:
    """The same rows in every task, their values in another order, fixed for the task; the first task is unchanged.

    Args:
        of: a data set, or its name; of a table the columns must be of one kind, numbers.
        tasks: how many.
        scenario: ``domain`` (the tasks share their outputs), or ``class`` and ``task`` (outputs of their own).
        order: seed of the permutations.
        valid: share of the training rows kept for ``Experience.valid``, the same records in every task.
        seed: of the draw of these rows.

    Raises:
        BadInput: no task, an unknown scenario, or a table with categories.

    Example:
        >>> from oblivio import data
        >>> stream = data.permuted("digits", tasks=3)
        >>> len(stream.held) == 3 * len(stream.test[0]), stream.outputs
        (True, 10)
    """
    pool = Pool(loaded(of), valid, seed)
    layout = pool.dataset.preprocess
    if isinstance(layout, Layout) and any(layout.sizes):
        raise BadInput(f"{pool.dataset.name!r} has columns of categories, which cannot change places with numbers")
    _check_count(tasks)
    values = math.prod(pool.dataset.inputs)
    draws = [torch.randperm(values, generator=generator("permuted", order, t)) for t in range(1, tasks)]
    changes: list[Change] = [identity, *map(Permute, draws)]
    return _changed(pool, scenario, "permuted", changes, [f"permutation {t}" for t in range(tasks)], {"order": order})


def rotated(
    of: Dataset | str | Path,
    *,
    tasks: int = 4,
    step: float = 90.0,
    scenario: str = "domain",
    valid: float = 0.0,
    seed: int = 0,
) -> Stream:
    """The same images in every task, turned by ``step`` degrees more; the first task is unchanged.

    Args:
        of: a data set of images, or its name.
        tasks: how many.
        step: degrees, anticlockwise. Multiples of 90 move pixels, others interpolate.
        scenario: as ``permuted``.
        valid: as ``permuted``.
        seed: of the draw of validation rows.

    Raises:
        BadInput: no images, no task, a step that is no number, an unknown scenario, or images that a quarter turn
            would give another shape.
    """
    pool = Pool(loaded(of), valid, seed)
    height, width = _image(pool.dataset)
    _check_count(tasks)
    if not math.isfinite(step):
        raise BadInput(f"step={step} is no angle; give degrees")
    angles = [(t * step) % 360 for t in range(tasks)]
    if height != width and any(angle in (90, 270) for angle in angles):
        raise BadInput(f"images of {height} x {width} pixels have another shape after a quarter turn; use square ones")
    names = [f"{angle:g} degrees" for angle in angles]
    return _changed(pool, scenario, "rotated", [Rotate(angle) for angle in angles], names, {"step": step})


def domains(
    of: Dataset | str | Path,
    *,
    tasks: Sequence[str] = ("identity", "mirrored", "rotated", "inverted"),
    scenario: str = "domain",
    valid: float = 0.0,
    seed: int = 0,
) -> Stream:
    """The same images in every task, altered in another way.

    Args:
        of: a data set of images with values in [0, 1], or its name.
        tasks: of ``identity``, ``mirrored``, ``flipped``, ``rotated`` (by 90 degrees), ``inverted``, ``blurred`` (means
            of 3 x 3 pixels), ``dimmed`` (half as bright) and ``noisy`` (one fixed pattern), in order.
        scenario: as ``permuted``.
        valid: as ``permuted``.
        seed: of the draw of validation rows.

    Raises:
        BadInput: no images, an unknown way (with the nearest), no task, or an unknown scenario.
    """
    pool = Pool(loaded(of), valid, seed)
    height, width = _image(pool.dataset)
    _check_count(len(tasks))
    changes = [change(name, pool.dataset.inputs) for name in tasks]
    if height != width and "rotated" in tasks:
        raise BadInput(f"images of {height} x {width} pixels have another shape after a quarter turn; use square ones")
    return _changed(pool, scenario, "domains", changes, list(tasks), {})


def _changed(
    pool: Pool, scenario: str, kind: str, changes: Sequence[Change], names: Sequence[str], recipe: Mapping[str, Any]
) -> Stream:
    """One task a change, with all rows of the data set."""
    known, tasks, dataset = known_scenario(scenario), len(changes), pool.dataset
    if known != "domain":
        pool.check_classes(f"{known}-incremental")
    marks = Marks(pool, known, _offset(tasks, pool.count, known), tuple(changes))
    train, test = (np.arange(len(half)) for half in (dataset.train, dataset.test))
    own = known != "domain"
    return stream_of(
        pool, known,
        [marks.learn(train, t, names[t], which=t) for t in range(tasks)],
        [marks.measure(test, t, names[t], which=t) for t in range(tasks)],
        f"{kind}-{dataset.name}", {"kind": kind, "tasks": list(names), **recipe},
        outputs=tasks * pool.count if own else dataset.outputs, labels=None if own else dataset.classes,
    )  # fmt: skip


def _offset(tasks: int, count: int, scenario: Scenario) -> Tensor | None:
    """Outputs of their own for every task, one after another; None where they are shared."""
    return None if scenario == "domain" else torch.arange(tasks * count).view(tasks, count)


def _check_count(tasks: int) -> None:
    if tasks < 1:
        raise BadInput(f"{tasks} tasks; ask for at least 1")


def _image(dataset: Dataset) -> tuple[int, int]:
    """Height and width."""
    if len(dataset.inputs) != 3:
        raise BadInput(
            f"{dataset.name!r} has rows of the shape {dataset.inputs}; images (channels, height, width) are needed "
            f"(known changes are {', '.join(CHANGES)})"
        )
    return dataset.inputs[1], dataset.inputs[2]
