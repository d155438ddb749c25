"""Rows that can be told apart, and what the tests of streams read of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oblivio.core.source import Source
from oblivio.data.dataset import Dataset
from oblivio.data.streams.experience import Experience, Stream
from oblivio.sources import Tensors


def dataset(classes: int = 6, each: int = 8, inputs: tuple[int, ...] = (1, 4, 4), **facts: Any) -> Dataset:
    """Rows that say in ``x`` which they are: row i of the training rows holds i, of the test rows 1000 + i."""
    halves = []
    for first, many in ((0, each), (1000, 3)):
        y = torch.arange(classes).repeat(many)
        numbers = torch.arange(len(y)).float() + first
        x = numbers.view(-1, *[1] * len(inputs)).expand(-1, *inputs).clone()
        halves.append(Tensors({"x": x, "y": y}))
    base = {"name": "rows", "task": "classification", "inputs": inputs, "outputs": classes}
    return Dataset(train=halves[0], test=halves[1], **{**base, **facts})


def read(source: Source, name: str = "y") -> Tensor:
    return torch.cat([batch[name] for batch in source.batches(7)])


def ids(experience: Experience) -> list[int]:
    return experience.rows.ids.tolist()


def same(a: Stream, b: Stream) -> bool:
    """Equal rows, columns and order, experience by experience."""
    pairs = list(zip((*a.train, *a.test), (*b.train, *b.test), strict=True))
    return all(
        ids(p) == ids(q) and all(torch.equal(read(p.rows, n), read(q.rows, n)) for n in ("x", "y", "task"))
        for p, q in pairs
    )
