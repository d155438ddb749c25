"""Class-, task- and domain-incremental streams: the classes of a data set come in groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.data import selection
from oblivio.data.columns import Fields
from oblivio.data.dataset import Dataset
from oblivio.data.selection import Request
from oblivio.data.splitting import drawing
from oblivio.data.streams.build import Groups, Marks, Pool, loaded, members, numbered, stream_of, words
from oblivio.data.streams.experience import Scenario, Stream, known_scenario


@overload
def split(of: Source, request: Request, seed: int = ..., fields: Fields | None = ...) -> tuple[Source, Source]: ...


@overload
def split(
    of: Dataset | str | Path,
    *,
    tasks: int | Groups = ...,
    scenario: str = ...,
    order: int | None = ...,
    valid: float = ...,
    seed: int = ...,
) -> Stream: ...


def split(of: Any, *args: Any, **options: Any) -> Any:
    """Split rows by a request, or a data set into a stream of groups of its classes.

    - ``split(source, request, seed=0, fields=None)``: the rows that the request names, and all others; see ``select``.
    - ``split(dataset, tasks=5, scenario="class", order=None, valid=0.0, seed=0)``: a ``Stream``; see ``split_classes``.

    Example:
        >>> from oblivio import data
        >>> digits = data.load("digits")
        >>> forget, retain = data.split(digits.train, "class=3")
        >>> stream = data.split("digits", tasks=[(0, 1, 2), (3, 4)], scenario="domain")
        >>> stream.outputs, [experience.classes for experience in stream.train]
        (3, [(0, 1, 2), (0, 1)])
    """
    if isinstance(of, Source):
        return selection.split(of, *args, **options)
    return split_classes(of, *args, **options)


def split_classes(
    of: Dataset | str | Path,
    *,
    tasks: int | Groups = 5,
    scenario: str = "class",
    order: int | None = None,
    valid: float = 0.0,
    seed: int = 0,
) -> Stream:
    """A stream in which every task brings classes of its own; each row comes in exactly one experience.

    Args:
        of: a data set whose rows have one class, or its name (see ``load``).
        tasks: how many; the classes are shared out evenly in their order, the first tasks taking one more where that
            does not come out even. Or the classes of each task, by number or name, which need not be all.
        scenario: ``class`` (``y`` stays the class number), ``task`` (as well; the column ``task`` says which outputs
            count) or ``domain`` (``y`` is the place of the class in its task's list).
        order: seed of the order of the classes. None: the order of the labels, 0, 1, 2, ..., as split-MNIST and most
            published splits have it. It changes which classes come when, and nothing else.
        valid: share of the training rows of every class that goes to ``Experience.valid``.
        seed: of the draw of these rows.

    Raises:
        BadInput: rows without classes, an unknown scenario, more tasks than classes, a class that is in two tasks,
            twice in one or nowhere in the data, an empty task, an order besides a list of classes, or tasks of one
            class in the scenario domain.
    """
    known, pool = known_scenario(scenario), Pool(loaded(of), valid, seed)
    pool.check_classes("split")
    groups = grouped(pool, tasks, order)
    dataset = pool.dataset
    marks = Marks(pool, known, class_table(groups, pool.count, known))
    names = [words(dataset, group) for group in groups]
    train = [marks.learn(members(pool.train, g), t, names[t]) for t, g in enumerate(groups)]
    test = [marks.measure(members(pool.test, g), t, names[t]) for t, g in enumerate(groups)]
    return stream_of(
        pool, known, train, test, f"split-{dataset.name}", {"kind": "split", "tasks": groups, "order": order},
        outputs=max(map(len, groups)) if known == "domain" else pool.count,
        labels=None if known == "domain" else dataset.classes,
    )  # fmt: skip


def grouped(pool: Pool, tasks: int | Groups, order: int | None) -> list[list[int]]:
    """The classes of each task; see ``split_classes``."""
    count = pool.count
    if isinstance(tasks, int):
        if not 1 <= tasks <= count:
            raise BadInput(f"{tasks} tasks of {count} classes; ask for 1 to {count}")
        line = np.arange(count) if order is None else drawing("class order", order).permutation(count)
        return [part.tolist() for part in np.array_split(line, tasks)]
    if order is not None:
        raise BadInput(
            "tasks= gives the classes of each task in their order; leave order= out, or give a number of tasks"
        )
    if isinstance(tasks, str) or not isinstance(tasks, Sequence):
        raise BadInput(f"tasks={tasks!r}; give a number, or the list of the classes of each task")
    if not tasks:
        raise BadInput("tasks= is an empty list; give the classes of at least one task")
    groups = [numbered(pool, group, f"task {t}") for t, group in enumerate(tasks)]
    _check_apart(groups)
    return groups


def _check_apart(groups: Sequence[Sequence[int]]) -> None:
    home: dict[int, int] = {}
    for t, group in enumerate(groups):
        for c in group:
            if c in home:
                where = f"tasks {home[c]} and {t}" if home[c] != t else f"task {t} twice"
                raise BadInput(
                    f"class {c} is in {where}; every class has one task here (data.recurring and data.blurry bring "
                    "classes again)"
                )
            home[c] = t


def homes(groups: Groups, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The task of every class, -1 for those in none."""
    home = np.full(count, -1)
    for t, group in enumerate(groups):
        home[list(group)] = t
    return home


def _within(groups: Groups, count: int) -> Tensor:
    """The place of each class in its task's list, for every task, shape (tasks, classes); -1 for those in none."""
    place = torch.full((count,), -1)
    for group in groups:
        place[list(group)] = torch.arange(len(group))
    return place.expand(len(groups), count)


def class_table(groups: Groups, count: int, scenario: Scenario) -> Tensor | None:
    """How labels are numbered: within their task in the scenario domain, as they are in the others (None)."""
    if scenario != "domain":
        return None
    if max(map(len, groups)) == 1:
        raise BadInput("tasks of one class have nothing to tell apart in the scenario domain; ask for fewer tasks")
    return _within(groups, count)
