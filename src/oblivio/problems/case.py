"""Case: a trained model with rows that must go, and models that never saw them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oblivio.audits.subjects import Modules, Subject
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.jobs.method import apply
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.jobs.serving import forgotten_classes
from oblivio.problems.pool import Parts, Trainer
from oblivio.problems.table import Spec


@dataclass(frozen=True)
class Case:
    """A request and the networks that never saw what must go.

    Attributes:
        start: the problem, its model the trained original.
        references: the networks of each model that never saw it.
        network, recipe: how all of them were made, where that is known.
        spec: of a standard problem.
    """

    start: Problem
    references: Sequence[Modules]
    network: Network | None = None
    recipe: Recipe | None = None
    spec: Spec | None = None

    @property
    def classes(self) -> list[int]:
        """Those that go entirely."""
        return forgotten_classes(self.start)

    @property
    def original(self) -> Modules:
        """The networks that saw the rows."""
        return dict(self.start.nets.items())

    @property
    def retraining(self) -> float:
        """Rows that one retraining forwards; NaN where it is not known how the models were made."""
        rows = len(self.start.source("retain"))
        if self.recipe is not None and self.recipe.epochs is not None:
            return rows * self.recipe.epochs
        return rows * (math.nan if self.spec is None else float(self.spec.recipe.get("steps", math.nan)))

    def after(self, plan: Stage) -> Problem:
        """The start after a plan, on copies of its networks."""
        return apply(plan, self.start)[0]

    def never(self, number: int = 0) -> Problem:
        """The problem with reference ``number`` in place of the original."""
        there = self.start.copy()
        there.nets.update(dict(self.references[number]))
        return there

    def subjects(self, **outcomes: Modules | Problem) -> list[Subject]:
        """These outcomes, the original and the references, for an audit."""
        return [
            *(Subject(name, "outcome", _nets(nets)) for name, nets in outcomes.items()),
            Subject("original", "original", self.original),
            *(Subject(f"retrained {i}", "reference", nets) for i, nets in enumerate(self.references, 1)),
        ]


def _nets(given: Modules | Problem) -> Modules:
    return dict(given.nets.items()) if isinstance(given, Problem) else given


def build(parts: Parts, trainer: Trainer, seed: int, references: int, *, goal: str = "retrained",
          proxy: Any = None) -> Case:  # fmt: skip
    """Train the original and its references, or take them from the cache.

    Args:
        parts: of the rows.
        trainer: how; the same for all models.
        seed: of the original; references have others.
        references: how many.
        goal: of the problem.
        proxy: rows without labels, if any.
    """
    original = trainer.original(parts.train, seed)
    sources: Mapping[str, Any] = {"forget": parts.forget, "retain": parts.retain, "train": parts.train,
                                  "valid": parts.valid, "test": parts.test, "proxy": proxy, **parts.more}  # fmt: skip
    start = Problem(original, task=trainer.task, goal=goal, seed=seed, **sources)
    never = parts.retain if parts.never is None else parts.never
    nets: list[Modules] = [{"model": trainer.reference(i, never, seed)} for i in range(references)]
    return Case(start, nets, trainer.network, trainer.recipe)


def described(case: Case, spec: Spec) -> Case:
    """The same case with what it was made of."""
    return dataclasses.replace(case, spec=spec)
