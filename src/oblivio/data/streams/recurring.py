"""Long streams of recurring classes: SCoLe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oblivio.core.errors import BadInput, nearest
from oblivio.data.columns import Values
from oblivio.data.dataset import Dataset
from oblivio.data.splitting import drawing
from oblivio.data.streams.build import Groups, Marks, Pool, loaded, members, numbered, stream_of, words
from oblivio.data.streams.changes import CHANGES, change
from oblivio.data.streams.experience import Experience, Stream

PROBABILITIES = ("uniform", "skewed")
PHASES = ("one", "drop", "two")

Set = tuple[int, ...]


def recurring(
    of: Dataset | str | Path,
    *,
    experiences: int = 500,
    classes: int = 2,
    sets: Groups | None = None,
    probability: str = "uniform",
    factor: float = 0.05,
    power: float = 1.0,
    resampled: float = 1.0,
    phases: str = "one",
    corrupted: bool = False,
    order: int = 0,
    valid: float = 0.0,
    seed: int = 0,
) -> Stream:
    """Hundreds of experiences, each with all training rows of a few classes drawn at random (SCoLe).

    There is no task identity: the scenario is ``class``, every class counts as a task (the column ``task`` of a row is
    its class) and has a test of its own, so that the mean of the tests is the accuracy on all classes. Experiences with
    the same set of classes have the same number ``task`` and share their rows. (Paper: Challenging Common Assumptions
    about Catastrophic Forgetting, 2023.)

    Args:
        of: a data set whose rows have one class, or its name.
        experiences: how many.
        classes: how many an experience has, drawn without replacement.
        sets: a fixed list of sets of classes to draw from, in place of ``classes``.
        probability: of the classes: ``uniform``, or ``skewed``: 1/C less (1/C) * ``factor`` * rank, made to sum to 1,
            raised to ``power``, made to sum to 1 and shuffled.
        factor: of ``skewed``; the paper's is 0.05 for 10 classes and 0.01 for 100.
        power: of ``skewed``; above 1 it is more so.
        resampled: probability that a class (or set) of an experience is drawn; else it is the next of a fixed cycle. 0
            is a cyclic order, 1 purely random.
        phases: ``one``; ``drop``: after half of the stream half of the classes (or sets) come no more; ``two``: the
            second half of the stream has the classes (or sets) that the first half has not.
        corrupted: whether the images of each experience are altered in a way drawn for it (see ``domains``; that may
            be ``identity``). The tests are not.
        order: seed of all that is drawn here.
        valid: share of the training rows of every class that no experience trains on.
        seed: of the draw of these rows.

    Raises:
        BadInput: rows without classes, no experience, more classes than there are, probabilities below 0, a share
            outside 0 to 1, or an unknown name (with the nearest).

    Example:
        >>> from oblivio import data
        >>> stream = data.recurring("digits", experiences=300)
        >>> len(stream.train), len(stream.test), stream.tasks
        (300, 10, 45)
    """
    pool = Pool(loaded(of), valid, seed)
    pool.check_classes("recurring")
    units = _units(pool, sets)
    many = classes if sets is None else 1
    draw = Draw(units, many, _weights(len(units), probability, factor, power, order), resampled)
    _check(experiences, resampled, draw, phases)
    chosen = list(_drawn(draw, experiences, phases, order))
    ways = _ways(experiences, corrupted, order)
    train = _experiences(Marks(pool, "class", None, _changes(pool.dataset, corrupted)), chosen, ways)
    plain = Marks(pool, "class")
    test = [plain.measure(members(pool.test, [c]), c, words(pool.dataset, [c])) for c in range(pool.count)]
    recipe = {
        "kind": "recurring", "experiences": experiences, "classes": classes,
        "sets": None if sets is None else [list(unit) for unit in units], "probability": probability, "factor": factor,
        "power": power, "resampled": resampled, "phases": phases, "corrupted": corrupted, "order": order,
    }  # fmt: skip
    return stream_of(
        pool, "class", train, test, f"recurring-{pool.dataset.name}", recipe, outputs=pool.count,
        labels=pool.dataset.classes,
    )  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """What an experience draws: ``many`` of ``units`` (sets of classes) by their weights, or the next in a cycle."""

    units: tuple[Set, ...]
    many: int
    weights: Values
    resampled: float

    def among(self, allowed: Sequence[int], count: int, random: np.random.RandomState) -> Iterator[Set]:
        """``count`` sets of classes, from the units at the places ``allowed``."""
        cycle = random.permutation(list(allowed)).tolist()
        for i in range(count):
            start = i * self.many
            due = [cycle[(start + k) % len(cycle)] for k in range(self.many)]
            kept = [unit for unit in due if random.uniform() >= self.resampled]
            rest = [unit for unit in allowed if unit not in kept]
            if many := self.many - len(kept):
                weights = self.weights[rest] / self.weights[rest].sum()
                kept += random.choice(rest, many, replace=False, p=weights).tolist()
            yield tuple(sorted({c for unit in kept for c in self.units[unit]}))


def _units(pool: Pool, sets: Groups | None) -> tuple[Set, ...]:
    """What is drawn: single classes, or the given sets."""
    if sets is None:
        return tuple((c,) for c in range(pool.count))
    groups = [numbered(pool, group, f"set {i}") for i, group in enumerate(sets)]
    for i, group in enumerate(groups):
        if len(set(group)) < len(group):
            raise BadInput(f"set {i} is {group}; give no class twice")
    return tuple(map(tuple, groups))


def _weights(count: int, probability: str, factor: float, power: float, order: int) -> Values:
    """The probability of each unit."""
    if probability not in PROBABILITIES:
        raise BadInput(f"no probability is called {probability!r}{nearest(probability, PROBABILITIES)}")
    if probability == "uniform":
        return np.full(count, 1 / count)
    falling = (1 - factor * np.arange(count)) / count
    if (falling <= 0).any():
        raise BadInput(f"factor={factor} leaves some of {count} no probability; give less than {1 / (count - 1):.3g}")
    raised = (falling / falling.sum()) ** power
    return np.asarray(drawing("recurring weights", order).permutation(raised / raised.sum()))


def _check(experiences: int, resampled: float, draw: Draw, phases: str) -> None:
    if experiences < 1:
        raise BadInput(f"{experiences} experiences; ask for at least 1")
    if not 0 <= resampled <= 1:
        raise BadInput(f"resampled={resampled} is no probability; give a number from 0 to 1")
    if phases not in PHASES:
        raise BadInput(f"phases={phases!r} is unknown{nearest(phases, PHASES)}")
    there = len(draw.units) if phases == "one" else len(draw.units) // 2
    if not 1 <= draw.many <= there:
        raise BadInput(f"{draw.many} classes an experience of {there} (phases={phases!r}); ask for 1 to {there}")


def _drawn(draw: Draw, experiences: int, phases: str, order: int) -> Iterator[Set]:
    """The classes of every experience."""
    line = drawing("recurring halves", order).permutation(len(draw.units)).tolist()
    a, b = line[: len(line) // 2], line[len(line) // 2 :]
    everything = list(range(len(line)))
    parts = {"one": [everything], "drop": [everything, b], "two": [a, b]}[phases]
    counts = [experiences] if phases == "one" else [experiences // 2, experiences - experiences // 2]
    for i, (allowed, count) in enumerate(zip(parts, counts, strict=True)):
        yield from draw.among(allowed, count, drawing("recurring", order, i))


def _changes(dataset: Dataset, corrupted: bool) -> tuple[Any, ...]:
    if corrupted and len(dataset.inputs) != 3:
        raise BadInput(f"{dataset.name!r} has rows of the shape {dataset.inputs}; corrupted= needs images")
    return tuple(change(name, dataset.inputs) for name in CHANGES) if corrupted else ()


def _ways(experiences: int, corrupted: bool, order: int) -> list[int]:
    """Which change each experience draws."""
    if not corrupted:
        return [0] * experiences
    ways: list[int] = drawing("recurring changes", order).randint(0, len(CHANGES), experiences).tolist()
    return ways


def _experiences(marks: Marks, chosen: Sequence[Set], ways: Sequence[int]) -> list[Experience]:
    """Those with the same classes and change are one object: nothing is stored twice, however long the stream."""
    numbers: dict[Set, int] = {}
    known: dict[tuple[Set, int], Experience] = {}
    for classes, way in zip(chosen, ways, strict=True):
        task = numbers.setdefault(classes, len(numbers))
        if (classes, way) not in known:
            places = members(marks.pool.train, classes)
            name = words(marks.pool.dataset, classes)
            known[classes, way] = marks.learn(places, task, name, which=way, home=marks.pool.train)
    return [known[key] for key in zip(chosen, ways, strict=True)]
