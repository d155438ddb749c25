"""Outcome: the model that has forgotten, what it cost, and the report on it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from oblivio import artefact
from oblivio.audits.report import HTML, ROWS, Report, write_rows
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.surgery import Journal
from oblivio.jobs.auditing import Background, audited, can_write_rows
from oblivio.jobs.derived import derived
from oblivio.jobs.folder import MODEL, check_new
from oblivio.jobs.method import Chosen
from oblivio.jobs.references import Reference
from oblivio.networks import Architecture
from oblivio.networks.language.folder import FACTS, save_model
from oblivio.tasks.language import CausalLM


@dataclass(frozen=True)
class Making:
    """What must be known of a model to save it so that it loads again."""

    architecture: Architecture | None = None
    classes: tuple[str, ...] | None = None
    journal: Journal = field(default_factory=list)  # surgery before this run
    base: str | None = None  # where the language model lies that an adapter was put beside


@dataclass(frozen=True)
class Outcome:
    """What a forgetting gave.

    Attributes:
        problem: the request, on the networks as they are now.
        original: the same request on the networks as they were.
        chosen: the method: its plan, name and settings.
        cost: ``seconds``; ``rows`` forwarded, by source; ``peak_bytes`` of memory of the whole process; and, where
            the cost of retraining is known, ``of_retraining``: seconds and rows as shares of it. Empty for a model
            that was changed elsewhere.
        references: models that never saw the forgotten rows.
        notes: what there is to know about the request, one sentence each.
        making: what saving the model takes; None for one that was changed elsewhere, and is not written again.
        background: what the report says beside figures.
    """

    problem: Problem
    original: Problem
    chosen: Chosen
    cost: dict[str, Any]
    references: Sequence[Reference] = ()
    notes: Sequence[str] = ()
    making: Making | None = field(default_factory=Making)
    background: Background = field(default_factory=Background)

    @property
    def model(self) -> nn.Module:
        """The model that has forgotten, in evaluation mode."""
        return self.problem.model.eval()

    @property
    def plan(self) -> Stage:
        """The plan that was run; it prints as its equation."""
        return self.chosen.plan

    @functools.cached_property
    def report(self) -> Report:
        """The audit of this model beside the original, references and controls; made when first asked for."""
        return audited(self, self.references, self.background)

    def climbed(self, ladder: Sequence[Mapping[str, Any]]) -> Outcome:
        """The same outcome, whose report shows the methods that were tried before; nothing is measured again."""
        made = replace(self, background=replace(self.background, ladder=ladder))
        made.__dict__["report"] = self.report.but(ladder=ladder)
        return made

    def table(self) -> str:
        """Verdict, figures and cost as readable text."""
        return self.report.table()

    def save(self, folder: str | Path) -> None:
        """Write the model (``model/``), ``report.html``, ``report.json`` and ``rows.parquet`` into a new folder.

        Raises:
            BadInput: the folder holds something, or cannot be written.
        """
        check_new(Path(folder))
        self.write(Path(folder))

    def write(self, folder: Path) -> None:
        """Write what a killed ``write`` to this folder left out; ``report.json`` comes last."""
        if self.making is not None and not any((folder / MODEL / name).exists() for name in (artefact.META, FACTS)):
            self._write_model(folder / MODEL, self.making)
        folder.mkdir(parents=True, exist_ok=True)
        self._with_rows(folder).save(folder / HTML, rows=False)

    def _with_rows(self, folder: Path) -> Report:
        """The report, once ids and figures of every row are written, if they are to be; it then lists that file."""
        report = self.report
        if not self.background.settings.rows or report.per_row is None:
            return report
        if not can_write_rows():
            return report.but(notes=[*report["notes"], f"{ROWS} was not written: it needs oblivio[tables]"])
        write_rows(folder / ROWS, report.per_row)
        mine = derived(folder / ROWS, "ids and figures of every row")
        return report.but(derived=[*report["derived"], asdict(mine)])

    def _write_model(self, folder: Path, making: Making) -> None:
        journal = [*making.journal, *self.problem.journal]
        facts = {"method": self.chosen.name, "settings": self.chosen.settings, "plan": repr(self.plan),
                 "seed": self.problem.seed, "goal": self.problem.goal,
                 "forgotten": len(self.problem.source("forget"))}  # fmt: skip
        if isinstance(self.problem.task, CausalLM):
            task, known = self.problem.task, {**facts, "base": making.base}
            save_model(folder, self.model, task.tokenizer, journal=journal, base=making.base, facts=known)
            return
        artefact.save(
            folder, self.model, task=self.problem.task.name, architecture=making.architecture, journal=journal,
            classes=making.classes, provenance=facts,
        )  # fmt: skip


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
