"""Outcome: the model that has forgotten, what it cost, and how it stands beside models that never knew."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from oblivio import artefact
from oblivio.audits.figures import Figures, Subject, controls, figures
from oblivio.core.files import write_json
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.surgery import Journal
from oblivio.jobs.folder import FIGURES, MODEL, check_new
from oblivio.jobs.method import Chosen
from oblivio.jobs.references import Reference
from oblivio.jobs.serving import forgotten_classes
from oblivio.networks import Architecture


@dataclass(frozen=True)
class Making:
    """What must be known of a model to save it so that it loads again."""

    architecture: Architecture | None = None
    classes: tuple[str, ...] | None = None
    journal: Journal = field(default_factory=list)  # surgery before this run


@dataclass(frozen=True)
class Outcome:
    """What a forgetting gave.

    Attributes:
        problem: the request, on the networks as they are now.
        original: the same request on the networks as they were.
        chosen: the method: its plan, name and settings.
        cost: ``seconds``; ``rows`` forwarded, by source; ``peak_bytes`` of memory of the whole process; and, where
            the cost of retraining is known, ``of_retraining``: seconds and rows as shares of it.
        references: models that never saw the forgotten rows.
        notes: what there is to know about the request, one sentence each.
    """

    problem: Problem
    original: Problem
    chosen: Chosen
    cost: dict[str, Any]
    references: Sequence[Reference] = ()
    notes: Sequence[str] = ()
    making: Making = Making()

    @property
    def model(self) -> nn.Module:
        """The model that has forgotten, in evaluation mode."""
        return self.problem.model.eval()

    @property
    def plan(self) -> Stage:
        """The plan that was run; it prints as its equation."""
        return self.chosen.plan

    @functools.cached_property
    def figures(self) -> Figures:
        """Accuracy or error on forgotten, retained and test rows, of this model, the original, references, controls.

        Computed when first asked for, in one pass for each model and source; see ``oblivio.audits.figures.figures``.
        """
        return compare(self, self.references)

    def table(self) -> str:
        """All of it as readable text."""
        return "\n".join([str(self.figures), "", _cost(self.cost), *(f"note: {n}" for n in self.notes)])

    def facts(self) -> dict[str, Any]:
        """Method, cost, figures and notes, as JSON can hold them."""
        return {
            "method": self.chosen.name,
            "settings": self.chosen.settings,
            "plan": repr(self.plan),
            "cost": self.cost,
            "figures": self.figures,
            "notes": list(self.notes),
        }

    def save(self, folder: str | Path) -> None:
        """Write the model (``model/``) and ``figures.json`` into a folder that is new or empty.

        Raises:
            BadInput: the folder holds something, or cannot be written.
        """
        check_new(Path(folder))
        self.write(Path(folder))

    def write(self, folder: Path) -> None:
        """Write what a killed ``write`` to this folder left out; the figures come last."""
        if not (folder / MODEL / artefact.META).exists():
            self._write_model(folder / MODEL)
        write_json(folder / FIGURES, self.facts())

    def _write_model(self, folder: Path) -> None:
        artefact.save(
            folder, self.model, task=self.problem.task.name, architecture=self.making.architecture,
            journal=[*self.making.journal, *self.problem.journal], classes=self.making.classes,
            provenance={"method": self.chosen.name, "settings": self.chosen.settings, "plan": repr(self.plan),
                        "seed": self.problem.seed, "goal": self.problem.goal,
                        "forgotten": len(self.problem.source("forget"))},
        )  # fmt: skip


def compare(outcome: Outcome, references: Sequence[Reference]) -> Figures:
    """The figures of an outcome, its original, these references and the controls."""
    now, before = dict(outcome.problem.nets.items()), dict(outcome.original.nets.items())
    classes = forgotten_classes(outcome.problem) if outcome.problem.task.name == "classification" else []
    subjects = [
        Subject(outcome.chosen.name, "outcome", now),
        Subject("original", "original", before),
        *(Subject(f"retrained {i}", "reference", {**before, "model": r.module}) for i, r in enumerate(references, 1)),
        *controls(before, now, classes, outcome.problem.seed),
    ]
    return figures(outcome.problem, subjects, classes)


def cost(seconds: float, passes: dict[str, int], peak: int, retraining: Sequence[Reference]) -> dict[str, Any]:
    """What a method took, and how that stands to retraining where some of ``retraining`` say what they took."""
    found: dict[str, Any] = {"seconds": seconds, "rows": dict(passes), "peak_bytes": peak}
    times = [r.seconds for r in retraining if r.seconds]
    rows = [r.rows for r in retraining if r.rows]
    shares = {
        "seconds": seconds / np.mean(times) if times else None,
        "rows": sum(passes.values()) / np.mean(rows) if rows else None,
    }
    known = {k: float(v) for k, v in shares.items() if v is not None}
    return {**found, "of_retraining": known} if known else found


def _cost(spent: dict[str, Any]) -> str:
    rows = ", ".join(f"{n:,} of {name}" for name, n in spent["rows"].items())
    shares = [f"{100 * share:.1f}% of retraining's {name}" for name, share in spent.get("of_retraining", {}).items()]
    return f"cost: {spent['seconds']:.1f} s; rows forwarded: {rows or 'none'}{'; ' * bool(shares)}{', '.join(shares)}"
