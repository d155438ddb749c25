"""Several views of a row in one batch, and a longer rest until it comes again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator
from oblivio.core.source import Batch
from oblivio.core.term import On, source_name
from oblivio.sources.derived import Through

if TYPE_CHECKING:
    from oblivio.core.problem import Problem
    from oblivio.core.step import Step


class Look(Protocol):
    """How a view is made: ``look(x, first, rng)``, ``first`` (n,) saying which rows are a sample's first view."""

    def __call__(self, x: Tensor, first: Tensor, rng: torch.Generator) -> Tensor: ...


class ViewBatches(Through):
    """The source ``of``, every row ``R`` times in a row in one batch, and then not for ``R`` epochs.

    An epoch has as many steps as before, and in R epochs each row comes R times, all at once. The order changes every R
    epochs. It has the name of that source, in whose place it stands. Passes over all rows in order see every row once,
    as it is read.

    Args:
        of: the source.
        R: views of a row in a batch.
        look: makes the views of a batch's inputs ``x``; None: all views are the row as it is read.

    Raises BadInput, when a batch is drawn, for batches smaller than R.
    """

    views = True

    def __init__(self, of: On, R: int, look: Look | None = None) -> None:
        super().__init__((of,), source_name(of))
        self.R, self.look = R, look

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether reading a row twice may differ; with ``look`` a drawn row is not what is read."""
        return self.look is not None or self.found[0].random

    def draw(self, n: int, step: Step) -> Batch:
        """Batch ``step.t``: its share of this round's order, each row R times; batches are equal up to R rows."""
        if n < self.R:
            raise BadInput(f"a batch of {n} rows cannot hold {self.R} views of one; give a batch of {self.R} or more")
        batches = self.R * -(-len(self) // n)  # of R epochs
        around, i = divmod(step.t, batches)
        chosen = self._shuffled(step.problem, step.place, around)[
            len(self) * i // batches : len(self) * (i + 1) // batches
        ]
        batch = self.batch(chosen.repeat_interleave(self.R))
        if self.look is None:
            return batch
        first = torch.arange(len(batch)) % self.R == 0
        return batch.but(x=self.look(batch["x"], first, step.rng(f"{self.name}/views")))

    def _shuffled(self, problem: Problem, place: str, around: int) -> Tensor:
        key = (problem.seed, problem.turn, place, self.name, around)
        if self.__dict__.get("_round", (None,))[0] != key:  # a cache, not a state: the key determines it
            self._round = key, torch.randperm(len(self), generator=generator("views", *key))
        return self._round[1]

    def __repr__(self) -> str:
        return f"ViewBatches({self.of[0]!r}, R={self.R}, look={self.look!r})"
