"""Streams of tasks from different data sets, the user's own among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids, Source
from oblivio.data.dataset import Dataset, Preprocess
from oblivio.data.own import described
from oblivio.data.streams.build import Marks, Named, Pool, loaded
from oblivio.data.streams.experience import Scenario, Stream, known_scenario
from oblivio.sources import as_source
from oblivio.sources.marked import named_ids

Given: TypeAlias = "Dataset | str | Path | tuple[Any, Any]"


def in_turn(sets: Sequence[Given], *, scenario: str = "task", valid: float = 0.0, seed: int = 0) -> Stream:
    """A stream of data sets, one task each.

    Args:
        sets: data sets, names of them (see ``load``), or pairs of training and test rows, each as anything that may be
            a source: ``(x, y)``, a dict of columns, a map-style Dataset, a DataLoader.
        scenario: ``task`` or ``class``: outputs of their own for every set, one after another; ``domain``: shared
            outputs, class 0 of one set is class 0 of all.
        valid: share of the training rows of each set that goes to ``Experience.valid``.
        seed: of the draw of these rows.

    Ids stay those of the sets, unless two sets would give one id to different records; then each is put behind the
    name of its set, as in ``"mnist:17"`` and ``"mnist test:17"``.

    Raises:
        BadInput: no set, a value that is none, sets whose inputs have different shapes, that are for different things
            (classes, numbers) or need different preparation, rows without classes where outputs are counted, or an
            unknown scenario.

    Example:
        >>> import torch
        >>> from oblivio import data
        >>> a, b = ((torch.randn(20, 3), torch.arange(20) % k) for k in (3, 4))
        >>> stream = data.in_turn([(a, a), (b, b)], scenario="class")
        >>> [experience.classes for experience in stream.train]
        [(0, 1, 2), (3, 4, 5, 6)]
    """
    known = known_scenario(scenario)
    datasets = [_dataset(given, i) for i, given in enumerate(sets)]
    if not datasets:
        raise BadInput("in_turn: no data sets; give at least one")
    names = _distinct([dataset.name for dataset in datasets])
    same(datasets, names, "inputs", "inputs of the shape")
    pools = [Pool(dataset, valid, seed) for dataset in datasets]
    modality, outputs = _head(pools, names, known)
    marks = _marks(pools, names, known)
    everything = [(np.arange(len(d.train)), np.arange(len(d.test))) for d in datasets]
    return Stream(
        name="+".join(names), scenario=known,
        train=tuple(m.learn(everything[t][0], t, names[t]) for t, m in enumerate(marks)),
        test=tuple(m.measure(everything[t][1], t, names[t]) for t, m in enumerate(marks)),
        inputs=datasets[0].inputs, outputs=outputs, modality=modality,
        labels=_labels(pools, names) if known != "domain" else None, preprocess=_preprocess(datasets, names),
        recipe={"kind": "in_turn", "sets": names, "scenario": known, "valid": valid, "seed": seed},
    )  # fmt: skip


def _dataset(given: Any, i: int) -> Dataset:
    if isinstance(given, (Dataset, str, Path)):
        return loaded(given)
    if isinstance(given, (tuple, list)) and len(given) == 2:
        name = f"set {i}"
        train, test = (as_source(half, f"a part of {name}") for half in given)
        return described(name, train, test)
    raise BadInput(f"set {i} is a {type(given).__name__}; give a Dataset, a name, or (train, test)")


def _distinct(names: Sequence[str]) -> list[str]:
    """A number behind those that come more than once."""
    counts, seen = Counter(names), Counter[str]()
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if counts[name] == 1 else f"{name}#{seen[name]}")
    return out


def same(datasets: Sequence[Dataset], names: Sequence[str], fact: str, words: str) -> None:
    """Refuse data sets that differ in a fact."""
    first = getattr(datasets[0], fact)
    for name, dataset in zip(names, datasets, strict=True):
        if getattr(dataset, fact) != first:
            raise BadInput(
                f"{names[0]!r} has {words} {first} and {name!r} {getattr(dataset, fact)}; a stream needs one for all"
            )


def _head(pools: Sequence[Pool], names: Sequence[str], scenario: Scenario) -> tuple[str, int]:
    """What the outputs are for, and how many there are; shared outputs serve one kind of target."""
    if scenario != "domain":
        return "classification", sum(pool.count for pool in pools)
    datasets = [pool.dataset for pool in pools]
    if all(pool.labelled for pool in pools) and any(dataset.task != "binary" for dataset in datasets):
        return "classification", max(pool.count for pool in pools)
    same(datasets, names, "task", "targets for")
    same(datasets, names, "outputs", "a number of outputs of")
    return datasets[0].task, datasets[0].outputs


def _marks(pools: Sequence[Pool], names: Sequence[str], scenario: Scenario) -> list[Marks]:
    ids = clear_ids([pool.dataset for pool in pools], names)
    tables: list[torch.Tensor | None] = [None] * len(pools)
    if scenario != "domain":
        first = 0
        for t, pool in enumerate(pools):
            pool.check_classes(f"{scenario}-incremental")
            tables[t] = torch.arange(first, first + pool.count).expand(len(pools), pool.count)
            first += pool.count
    return [Marks(p, scenario, tables[t], (), ids[t]) for t, p in enumerate(pools)]


def clear_ids(sets: Sequence[Dataset], names: Sequence[str]) -> list[Named | None]:
    """None for each set where an id means one record in all of them; else ids behind the names of the sets."""
    if not any(_clash(a.train, b.train) or _clash(a.test, b.test) for a, b in combinations(sets, 2)):
        return [None] * len(sets)
    naming = object()
    return [Named(_named(dataset, name), naming) for dataset, name in zip(sets, names, strict=True)]


def _clash(a: Source, b: Source) -> bool:
    return not a.comparable(b) and bool(np.isin(a.ids.astype(str), b.ids.astype(str)).any())


def _named(dataset: Dataset, name: str) -> tuple[Ids, Ids]:
    """The test rows are told from the training rows where their ids do not do it."""
    test = name if dataset.train.comparable(dataset.test) else f"{name} test"
    return named_ids(dataset.train.ids, name), named_ids(dataset.test.ids, test)


def _labels(pools: Sequence[Pool], names: Sequence[str]) -> tuple[str, ...]:
    """What each output stands for."""
    return tuple(
        f"{name}: {word}"
        for name, pool in zip(names, pools, strict=True)
        for word in (pool.dataset.classes or range(pool.count))
    )


def _preprocess(datasets: Sequence[Dataset], names: Sequence[str]) -> Preprocess:
    """What is fitted for all: that of those sets that say what they need."""
    found = [(name, d.preprocess) for name, d in zip(names, datasets, strict=True) if d.preprocess is not None]
    for name, preprocess in found:
        if preprocess != found[0][1]:
            raise BadInput(
                f"{found[0][0]!r} and {name!r} have columns of different kinds, which one network cannot take"
            )
    return found[0][1] if found else None
