"""What a set-up starts from and what it gives: a pool of rows, and the parts it divides them into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from oblivio import records
from oblivio.core.errors import BadInput, nearest
from oblivio.core.problem import Problem
from oblivio.core.source import Source
from oblivio.core.task import Task
from oblivio.data.dataset import Dataset
from oblivio.data.manipulate import only
from oblivio.jobs import cache
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.jobs.references import seed_of
from oblivio.problems.kept import kept


@dataclass(frozen=True)
class Trainer:
    """How a problem's models are trained; each is kept under a key of all that determines it, rows included.

    Models see the columns ``x`` and ``y`` alone, so that flags beside them are no part of the key.
    """

    recipe: Recipe
    network: Network
    task: str

    def original(self, rows: Source, seed: int) -> nn.Module:
        """The model trained on these rows."""
        return cache.trained(self.recipe, self.network, only(rows), seed, task=self.task).module

    def reference(self, number: int, rows: Source, seed: int) -> nn.Module:
        """Model ``number`` that never saw what must go: other weights, other order."""
        return self.original(rows, seed_of(seed, number))

    def place(self, rows: Source, seed: int) -> Path:
        """The folder of the original."""
        return cache.place(cache.parts(self.recipe, self.network, only(rows), seed, task=self.task))


@dataclass(frozen=True)
class Untrained(Trainer):
    """Models that have learned nothing."""

    def original(self, rows: Source, seed: int) -> nn.Module:
        """A fresh network."""
        return self.network.build(only(rows), seed)


@dataclass(frozen=True)
class Pool:
    """What a set-up starts from.

    Attributes:
        dataset: the data, its labels as the problem has them.
        train: rows to train on; none of them is held out.
        valid: rows held out, or None.
        seed: of every draw.
        trainer: how models are trained, for set-ups that ask a model which rows to take.
    """

    dataset: Dataset
    train: Source
    valid: Source | None
    seed: int
    trainer: Trainer

    @property
    def test(self) -> Source:
        """Test rows."""
        return self.dataset.test


@dataclass(frozen=True)
class Parts:
    """What a set-up gives.

    Attributes:
        train: what the original is trained on, manipulated rows as they are.
        forget, retain: the parts of ``train`` that go and stay.
        test, valid: rows that no model is trained on.
        never: what references are trained on; None: ``retain``.
        outputs: of the model, where labels are others than the data set's.
        more: further sources of the problem, by name: ``affected``, manipulated rows with their true labels, and
            ``triggered``, test rows with the backdoor's patch.
    """

    train: Source
    forget: Source
    retain: Source
    test: Source
    valid: Source | None = None
    never: Source | None = None
    outputs: int | None = None
    more: Mapping[str, Source] = field(default_factory=dict)


def made_records(names: Sequence[str], place: Path, model: nn.Module, task: Task | str, train: Source,
                 seed: int) -> dict[str, Any]:  # fmt: skip
    """Records of a training, made now or kept beside the model in ``place``."""

    def one(name: str) -> Any:
        made_of = {"seed": seed, "code": cache.code((f"records/{name}.py",))}
        problem = Problem(model, task=task, seed=seed, train=train).copy()
        return kept(place, name, made_of, partial(records.make, name, problem))

    return {name: one(name) for name in names}


def check_records(names: Sequence[str]) -> None:
    """Raises BadInput for a record that cannot be made, with the nearest name."""
    for name in names:
        if name not in (known := records.names()):
            raise BadInput(f"there is no record {name!r}{nearest(name, known)}")
