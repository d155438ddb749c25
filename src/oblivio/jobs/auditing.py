"""From an outcome to its report: which models are looked at, and what the report says beside their figures."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from oblivio.audits.audit import Facts, audit
from oblivio.audits.language import audit as language
from oblivio.audits.report import Report
from oblivio.audits.reproduction import reproduced
from oblivio.audits.subjects import Subject, controls
from oblivio.core.problem import Problem
from oblivio.core.surgery import Wrap
from oblivio.jobs.derived import Derived
from oblivio.jobs.job import Audit
from oblivio.jobs.references import Reference
from oblivio.jobs.serving import forgotten_classes
from oblivio.modules.adapters import adapters, merge_adapters
from oblivio.tasks.language import CausalLM

if TYPE_CHECKING:
    from oblivio.jobs.outcome import Outcome

HIDDEN = "what is hidden is still in the weights: it is suppressed, not deleted"


@dataclass(frozen=True)
class Background:
    """What an audit must be told, since no model shows it.

    Attributes:
        settings: tolerances, probes to leave out, whether rows are written.
        data: ``name``, ``licence`` and ``classes`` (words) of the data set.
        derived: what still derives from the forgotten rows.
        control: a model trained on all rows by the recipe of the references; None where the original itself was.
        ladder: the methods that were tried before this one was taken; see ``oblivio.jobs.ladder``.
    """

    settings: Audit = field(default_factory=Audit)
    data: Mapping[str, Any] = field(default_factory=dict)
    derived: Sequence[Derived] = ()
    control: nn.Module | None = None
    ladder: Sequence[Mapping[str, Any]] = ()


def audited(outcome: Outcome, references: Sequence[Reference], background: Background) -> Report:
    """The report on an outcome beside its original, these references, and the controls."""
    problem, settings = outcome.original, background.settings
    now, before = dict(outcome.problem.nets.items()), dict(problem.nets.items())
    classes = forgotten_classes(problem) if problem.task.name == "classification" else []
    retrained = [
        Subject(f"retrained {i}", "reference", {**before, "model": r.module}) for i, r in enumerate(references, 1)
    ]
    subjects = [
        Subject(outcome.chosen.name, "outcome", now),
        Subject("original", "original", before),
        *retrained,
        *controls(before, _merged(now), classes, problem.seed),
    ]
    same = None
    if background.control is not None and len(retrained) > 1:
        same = reproduced(problem, background.control, retrained, classes)
    facts = Facts(
        method={"name": outcome.chosen.name, "settings": outcome.chosen.settings, "plan": repr(outcome.plan)},
        cost=outcome.cost,
        data=background.data,
        notes=[*outcome.notes, *_notes(outcome.problem)],
        guarantee="empirical" if outcome.chosen.spec is None else outcome.chosen.spec.guarantee,
        derived=[asdict(each) for each in background.derived],
        reproduced=same,
        ladder=background.ladder,
    )
    if isinstance(problem.task, CausalLM):
        return language.audit(problem, subjects, attack=settings.attacks, tolerances=settings.tolerances,
                              leave_out=settings.leave_out, facts=facts)  # fmt: skip
    return audit(problem, subjects, classes, tolerances=settings.tolerances, leave_out=settings.leave_out, facts=facts)


def _merged(nets: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The networks, what an adapter adds put into the model's own weights, so that these can be compared by name."""
    if not adapters(nets["model"]) or isinstance(nets["model"], Wrap):
        return nets
    made = {**nets, "model": copy.deepcopy(nets["model"])}
    merge_adapters(made)
    return made


def _notes(problem: Problem) -> list[str]:
    return [HIDDEN] if isinstance(problem.model, Wrap) and not problem.model.deletes else []


def can_write_rows() -> bool:
    """Whether the library that writes ``rows.parquet`` is there."""
    return importlib.util.find_spec("pyarrow") is not None
