"""Case: all that probes may look at. Every model has passed once over every source."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from oblivio.audits.seen import FEATURED, Seen, look
from oblivio.audits.subjects import Subject
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.data.columns import column
from oblivio.tasks.classification import Binary, Classification

AUDITED = ("forget", "retain", "test", "affected")  # the sources that are passed over, where the problem has them


@dataclass(frozen=True)
class Look:
    """A model and what it gave on each source."""

    subject: Subject
    on: Mapping[str, Seen]

    def __getitem__(self, source: str) -> Seen:
        return self.on[source]


@dataclass(frozen=True)
class Case:
    """A request with every model's outputs. Probes that round weights or relearn run copies of the models again.

    Attributes:
        problem: the request, on the original's networks.
        looks: one for each model; the outcome, the original, references, controls.
        classes: those that go entirely, as numbers; empty for a request of rows.
        targets: of every source's rows.
        groups: of every source's rows, where the source has a column ``group``.
        sample: by source, places of the rows whose features are known, in rising order.
    """

    problem: Problem
    looks: Sequence[Look]
    classes: Sequence[int]
    targets: Mapping[str, Tensor]
    groups: Mapping[str, Tensor]
    sample: Mapping[str, Tensor]

    @property
    def outcome(self) -> Look:
        """The first outcome."""
        return self._of("outcome")[0]

    @property
    def original(self) -> Look:
        """The untouched original."""
        return self._of("original")[0]

    @property
    def references(self) -> list[Look]:
        """Models that never saw the forgotten rows."""
        return self._of("reference")

    def _of(self, kind: str) -> list[Look]:
        return [look for look in self.looks if look.subject.kind == kind]

    def others(self, me: Look) -> list[Look]:
        """The references that ``me`` is held against: all of them, or all but itself."""
        return [look for look in self.references if look is not me]

    @property
    def labelled(self) -> bool:
        """Whether each row is of one class."""
        return labelled(self.problem)

    @cached_property
    def unseen(self) -> Tensor:
        """Places in ``test`` of rows of the classes that forgotten rows have; of all, where rows have no class."""
        everything = torch.arange(len(self.targets["test"]))
        if not self.labelled:
            return everything
        return everything[torch.isin(self.targets["test"], self.targets["forget"].unique())]

    @cached_property
    def kept(self) -> Tensor:
        """Places in ``test`` of rows that the model is to go on serving: all but those of the classes that go."""
        y = self.targets["test"]
        gone = (
            torch.isin(y, torch.tensor(list(self.classes))) if self.classes else torch.zeros(len(y), dtype=torch.bool)
        )
        return (~gone).nonzero().flatten()

    def strata(self) -> Iterator[tuple[float, Tensor, Tensor]]:
        """Share of the forgotten rows, their places, and those of the unseen rows beside them; class by class.

        A class without an unseen row is left out, and the shares are of what remains.
        """
        forget, test = self.targets["forget"], self.targets["test"]
        if not self.labelled:
            yield 1.0, torch.arange(len(forget)), torch.arange(len(test))
            return
        pairs = [((forget == c).nonzero().flatten(), (test == c).nonzero().flatten()) for c in forget.unique()]
        pairs = [(gone, beside) for gone, beside in pairs if len(beside)]
        total = sum(len(gone) for gone, _ in pairs)
        for gone, beside in pairs:
            yield len(gone) / total, gone, beside

    @property
    def chance(self) -> float:
        """The share of right answers of a model that knows nothing; NaN where there are no answers to be right."""
        return 1 / self.outputs if self.labelled else math.nan

    @property
    def outputs(self) -> int:
        """Answers to choose among."""
        out = self.original["forget"].out
        return out.shape[1] if out.dim() > 1 and out.shape[1] > 1 else 2


def gather(problem: Problem, subjects: Sequence[Subject], classes: Sequence[int]) -> Case:
    """Pass every model over every source once.

    Args:
        problem: the request; the sources ``forget`` and ``test``, and ``retain`` and ``affected`` if there are such,
            are passed over where their rows have targets.
        subjects: outcome and original, and any references and controls.
        classes: those that go entirely.
    """
    problem = alone(problem)
    sources = [name for name in AUDITED if name in problem.sources and "y" in problem.sources[name].columns]
    sources = [name for name in sources if len(problem.sources[name])]
    sample = {name: _sample(problem, name) for name in sources}
    looks = [Look(each, {on: _seen(problem, each, on, sample) for on in sources}) for each in subjects]
    targets = {name: _column(problem, name, "y") for name in sources}
    if labelled(problem):
        targets = {name: y.flatten().long() for name, y in targets.items()}
    grouped = [name for name in sources if "group" in problem.sources[name].columns]
    return Case(problem, looks, classes, targets, {name: _column(problem, name, "group") for name in grouped}, sample)


def labelled(problem: Problem) -> bool:
    """Whether each row is of one class: classification, binary, and what is made of them."""
    return isinstance(problem.task, (Classification, Binary))


def _column(problem: Problem, on: str, name: str) -> Tensor:
    return torch.as_tensor(np.asarray(column(problem.sources[on], name)))


def alone(problem: Problem) -> Problem:
    """The same for one process: an audit is the first one's work, and what it trains must not wait for the others."""
    other = copy.copy(problem)
    other.team = replace(problem.team, rank=0, size=1)
    return other


def _seen(problem: Problem, subject: Subject, on: str, sample: Mapping[str, Tensor]) -> Seen:
    return look(problem, subject, on, sample[on], layers=on != "retain")


def _sample(problem: Problem, name: str) -> Tensor:
    rows = len(problem.sources[name])
    order = torch.randperm(rows, generator=generator(problem.seed, "audit", name))
    return order[:FEATURED].sort().values
