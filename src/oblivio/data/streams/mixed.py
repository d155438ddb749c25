"""Streams without sharp boundaries: blurry, stochastic and sliding ones, and streams in small pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.data.columns import Values, column
from oblivio.data.dataset import Dataset
from oblivio.data.splitting import Places, drawing
from oblivio.data.streams.build import Groups, Marks, Pool, loaded, members, stream_of, words
from oblivio.data.streams.classes import class_table, grouped, homes
from oblivio.data.streams.experience import Experience, Stream, known_scenario


def blurry(
    of: Dataset | str | Path,
    *,
    tasks: int | Groups = 5,
    share: float = 0.1,
    scenario: str = "class",
    order: int | None = None,
    valid: float = 0.0,
    seed: int = 0,
) -> Stream:
    """As ``split``, but a share of the rows of each task comes in the experiences of the others, evenly spread.

    Where the tasks are of one size, it is also the share of foreign rows in each experience. Every row comes in exactly
    one experience; its column ``task`` names the task of its class. Methods are not told of boundaries; the tests are
    those of ``split``.

    Args:
        of: as ``split``.
        tasks: as ``split``, at least two.
        share: from 0 to 1.
        scenario: as ``split``.
        order: as ``split``.
        valid: as ``split``.
        seed: of which rows come elsewhere, and of the draw of validation rows.

    Raises:
        BadInput: as ``split``, a share outside 0 to 1, or a single task.
    """
    pool, groups = _asked(of, tasks, order, valid, seed, "blurry")
    _check_share(share, "share")
    if len(groups) < 2:
        raise BadInput("a blurry stream needs at least two tasks")
    home = homes(groups, pool.count)[pool.train]
    at = home.copy()
    for t in range(len(groups)):
        rows = np.flatnonzero(home == t)
        leaving = drawing("blurry", seed, t).permutation(rows)[: round(share * len(rows))]
        at[leaving] = (t + 1 + np.arange(len(leaving)) % (len(groups) - 1)) % len(groups)
    places = [np.flatnonzero(at == t) for t in range(len(groups))]
    recipe = {"kind": "blurry", "tasks": groups, "order": order, "share": share}
    return _mixed(pool, groups, scenario, places, list(range(len(groups))), recipe)


def si_blurry(
    of: Dataset | str | Path,
    *,
    tasks: int = 5,
    disjoint: float = 0.5,
    share: float = 0.1,
    scenario: str = "class",
    order: int = 0,
    valid: float = 0.0,
    seed: int = 0,
) -> Stream:
    """Stochastic blurry boundaries (Si-Blurry): tasks of random size, some classes disjoint, the others blurred.

    The classes, shuffled, fall into a disjoint and a blurry group; each is cut into ``tasks`` parts at random places.
    Of the rows of blurry classes, ``share`` change tasks: their number is cut at random into one count a task, so many
    rows of each task are pooled, shuffled and given back. (Paper: Online Class Incremental Learning on Stochastic
    Blurry Task Boundary via Mask and Visual Prompt Tuning, 2023. There a task may be empty and the sizes of the groups
    are multiples of the number of tasks; here every task is given one class before the cuts, and no class is lost.)

    Args:
        of: as ``split``.
        tasks: how many.
        disjoint: share of the classes whose rows all come in their task.
        share: of the rows of the other classes, that change tasks.
        scenario: as ``split``.
        order: seed of the classes of each task.
        valid: as ``split``.
        seed: of which rows change tasks, and of the draw of validation rows.

    Raises:
        BadInput: as ``split``, or shares outside 0 to 1.
    """
    pool = Pool(loaded(of), valid, seed)
    pool.check_classes("blurry")
    _check_share(disjoint, "disjoint")
    _check_share(share, "share")
    grouped(pool, tasks, None)  # refuses more tasks than classes
    parts, groups = _random_groups(pool.count, tasks, disjoint, order)
    home = homes(groups, pool.count)[pool.train]
    at = home.copy()
    blurred = np.isin(pool.train, [c for part in parts for c in part])
    _exchange(at, blurred, tasks, share, seed)
    places = [np.flatnonzero(at == t) for t in range(tasks)]
    recipe = {"kind": "si_blurry", "tasks": groups, "order": order, "disjoint": disjoint, "share": share}
    return _mixed(pool, groups, scenario, places, list(range(tasks)), recipe)


def _random_groups(count: int, tasks: int, disjoint: float, order: int) -> tuple[list[list[int]], list[list[int]]]:
    """The blurry classes of each task, and all of them."""
    random = drawing("si-blurry classes", order)
    line, first = random.permutation(count).tolist(), round(disjoint * count)
    blurred, given = set(line[first:]), random.permutation(count)[:tasks].tolist()
    groups = [[c] for c in given]
    for half in (line[:first], line[first:]):
        rest = [c for c in half if c not in given]
        cuts = np.sort(random.randint(0, len(rest) + 1, tasks - 1))
        for group, part in zip(groups, np.split(rest, cuts), strict=True):
            group.extend(map(int, part))
    return [[c for c in group if c in blurred] for group in groups], groups


def _exchange(at: Places, blurred: Values, tasks: int, share: float, seed: int) -> None:
    """Let ``share`` of the blurred rows change places, so many of each task as a random cut says."""
    random = drawing("si-blurry rows", seed)
    total = round(share * int(blurred.sum()))
    counts = np.diff([0, *np.sort(random.randint(0, total + 1, tasks - 1)), total])
    leaving = [random.permutation(np.flatnonzero(blurred & (at == t)))[:n] for t, n in enumerate(counts)]
    pooled = np.concatenate(leaving)
    at[random.permutation(pooled)] = np.repeat(np.arange(tasks), list(map(len, leaving)))


def sliding(
    of: Dataset | str | Path,
    *,
    tasks: int | Groups = 5,
    experiences: int | None = None,
    width: float = 0.5,
    scenario: str = "class",
    order: int | None = None,
    valid: float = 0.0,
    seed: int = 0,
) -> Stream:
    """Tasks that fade into each other: the probability of a task rises before its time and falls after it.

    Every row comes once, at a time drawn from a normal distribution around the number of its task; the rows, in order
    of time, are cut into experiences of one size (up to one row). An experience bears the number of the task that most
    of its rows belong to, each row that of its own.

    Args:
        of: as ``split``.
        tasks: as ``split``.
        experiences: how many; None: four a task.
        width: deviation of the times, in tasks; 0 gives sharp boundaries.
        scenario: as ``split``.
        order: as ``split``.
        valid: as ``split``.
        seed: of the times, and of the draw of validation rows.

    Raises:
        BadInput: as ``split``, a negative width, or more experiences than rows.
    """
    pool, groups = _asked(of, tasks, order, valid, seed, "sliding")
    count = 4 * len(groups) if experiences is None else experiences
    if width < 0 or not np.isfinite(width):
        raise BadInput(f"width={width} is no deviation; give a number from 0")
    home = homes(groups, pool.count)[pool.train]
    rows = np.flatnonzero(home >= 0)
    if not 1 <= count <= len(rows):
        raise BadInput(f"{count} experiences of {len(rows)} rows; ask for 1 to {len(rows)}")
    times = home[rows] + width * drawing("sliding", seed).standard_normal(len(rows))
    places = [np.sort(part) for part in np.array_split(rows[np.argsort(times, kind="stable")], count)]
    most = [int(np.bincount(home[part]).argmax()) for part in places]
    recipe = {"kind": "sliding", "tasks": groups, "order": order, "width": width, "experiences": count}
    return _mixed(pool, groups, scenario, places, most, recipe)


def online(stream: Stream, *, size: int = 10, seed: int = 0) -> Stream:
    """The same stream in pieces of ``size`` rows in drawn order, each an experience; the last of each may be short.

    Learned for one epoch each, every batch is met once and no method sees where a task ends. The tests, and for each
    piece the validation rows, are those of the stream.

    Args:
        stream: any.
        size: rows of a piece.
        seed: of the order of the rows within an experience.

    Raises:
        BadInput: a size below 1.

    Example:
        >>> from oblivio import data
        >>> stream = data.online(data.split("digits"), size=10)
        >>> len(stream.train), stream.boundaries
        (122, False)
    """
    if size < 1:
        raise BadInput(f"pieces of {size} rows; ask for at least 1")
    pieces = [piece for i, e in enumerate(stream.train) for piece in _pieces(e, size, drawing("online", seed, i))]
    return replace(
        stream, name=f"online-{stream.name}", train=tuple(pieces), boundaries=False,
        recipe={**stream.recipe, "online": {"size": size, "seed": seed}},
    )  # fmt: skip


def _pieces(of: Experience, size: int, random: np.random.RandomState) -> list[Experience]:
    order, labels = random.permutation(len(of)), column(of.rows, "y")
    places = [order[start : start + size] for start in range(0, len(of), size)]
    return [
        replace(
            of, rows=of.rows.take(at), name=f"{of.name}, piece {i}",
            classes=tuple(np.unique(labels[at]).tolist()) if of.classes else (), of=_kept(of.of, labels[at]),
        )
        for i, at in enumerate(places)
    ]  # fmt: skip


def _kept(heads: Mapping[int, tuple[int, ...]], labels: Values) -> dict[int, tuple[int, ...]]:
    """Of the classes of each task those that occur."""
    here = {task: tuple(c for c in classes if c in labels) for task, classes in heads.items()}
    return {task: classes for task, classes in here.items() if classes}


def _asked(
    of: Dataset | str | Path, tasks: int | Groups, order: int | None, valid: float, seed: int, kind: str
) -> tuple[Pool, list[list[int]]]:
    pool = Pool(loaded(of), valid, seed)
    pool.check_classes(kind)
    return pool, grouped(pool, tasks, order)


def _mixed(
    pool: Pool,
    groups: Groups,
    scenario: str,
    places: Sequence[Places],
    numbers: Sequence[int],
    recipe: Mapping[str, Any],
) -> Stream:
    """Experiences of any rows, and the tests of ``groups``; every row knows the task of its class."""
    known, dataset = known_scenario(scenario), pool.dataset
    marks = Marks(pool, known, class_table(groups, pool.count, known))
    home = homes(groups, pool.count)[pool.train]
    train = [
        marks.learn(at, task, f"experience {i}", home=home)
        for i, (at, task) in enumerate(zip(places, numbers, strict=True))
    ]
    test = [marks.measure(members(pool.test, g), t, words(dataset, g)) for t, g in enumerate(groups)]
    return stream_of(
        pool, known, train, test, f"{recipe['kind']}-{dataset.name}", recipe,
        outputs=max(map(len, groups)) if known == "domain" else pool.count,
        labels=None if known == "domain" else dataset.classes, boundaries=False,
    )  # fmt: skip


def _check_share(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise BadInput(f"{name}={value} is no share; give a number from 0 to 1")
