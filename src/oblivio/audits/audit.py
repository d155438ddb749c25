"""The audit: every model passes once over every source, every probe looks at all of them, the policy judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio.audits import policy as policies
from oblivio.audits.case import Case, gather
from oblivio.audits.probe import Figure, figure, known
from oblivio.audits.report import Report
from oblivio.audits.subjects import Subject
from oblivio.audits.verdict import judge
from oblivio.core.errors import BadInput, nearest
from oblivio.core.problem import Problem

BINS = 40  # of the histograms of losses
VERSION = 1  # of the form of a report


@dataclass(frozen=True)
class Facts:
    """What a report says beside its figures; all of it as JSON can hold it.

    Attributes:
        method: ``name``, ``settings`` and ``plan``.
        cost: ``seconds``, ``rows`` forwarded by source, ``peak_bytes``, and ``of_retraining`` where that is known.
        data: ``name``, ``licence``, and ``classes``, the words for class numbers.
        notes: what there is to know, one sentence each.
        guarantee: ``exact``, ``certified`` or ``empirical``.
        derived: files and folders that still derive from the forgotten rows: ``path``, ``what`` and ``sha256``.
        reproduced: whether the recipe of the references gives models like the original: ``same`` and ``why``; None
            where the original was made by that recipe.
        ladder: the methods that were tried before this one was taken, in order: ``method``, ``word``, ``reason``, and
            ``expected`` and ``cost`` as shares of one retraining; empty where the user chose the method.
    """

    method: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    guarantee: str = "empirical"
    derived: Sequence[Mapping[str, Any]] = ()
    reproduced: Mapping[str, Any] | None = None
    ladder: Sequence[Mapping[str, Any]] = ()


def audit(
    problem: Problem,
    subjects: Sequence[Subject],
    classes: Sequence[int] = (),
    *,
    tolerances: Mapping[str, float] | None = None,
    leave_out: Sequence[str] = (),
    facts: Facts | None = None,
) -> Report:
    """Look at models, and judge the outcome among them.

    Args:
        problem: the request, on the original's networks; it is not changed, and its passes are not counted.
        subjects: one outcome, one original, and any references and controls.
        classes: those that go entirely, as numbers.
        tolerances: in place of the policy's own, by figure.
        leave_out: probes that are not made; the report says so, and the policy does without them.
        facts: what else the report is to say.

    Raises:
        BadInput: an unknown probe, or a tolerance for a figure that does not judge.
    """
    check_left_out(leave_out)
    policies.policy(problem.goal, tolerances)
    return examine(gather(problem, subjects, classes), tolerances=tolerances, leave_out=leave_out, facts=facts)


def examine(
    case: Case,
    *,
    tolerances: Mapping[str, float] | None = None,
    leave_out: Sequence[str] = (),
    facts: Facts | None = None,
) -> Report:
    """The report on models that have passed over every source; see ``audit``."""
    rules = policies.policy(case.problem.goal, tolerances)
    made = [left_out(probe) if probe.id in leave_out else figure(probe, case) for probe in known().values()]
    found = written(_request(case), [look.subject for look in case.looks], made, rules, facts or Facts())
    return judged({**found, "losses": _losses(case)}, per_row=_per_row(case))


def written(
    request: Mapping[str, Any], subjects: Sequence[Subject], made: Sequence[Figure], rules: list[policies.Rule],
    facts: Facts,
) -> dict[str, Any]:  # fmt: skip
    """What every report holds, before there is a verdict."""
    return {
        "version": VERSION,
        "oblivio": metadata.version("oblivio"),
        "request": request,
        "subjects": [{"name": s.name, "kind": s.kind} for s in subjects],
        "figures": [each.to_json() for each in made],
        "policy": policies.to_json(rules),
        "losses": {},
        **{name: getattr(facts, name) for name in Facts.__dataclass_fields__},
    }


def judged(found: dict[str, Any], per_row: Mapping[str, Any] | None) -> Report:
    """The report of findings, with its verdict."""
    found["verdict"] = judge(found).to_json()
    return Report.of(found, per_row=per_row)


def check_left_out(names: Sequence[str]) -> None:
    """Raises BadInput for a name that no probe has."""
    for name in names:
        if name not in (probes := known()):
            raise BadInput(f"audit.leave_out: there is no probe {name!r}{nearest(name, probes)}")


def left_out(probe: Any) -> Figure:
    """The figure of a probe that the user does without."""
    facts = (probe.id, probe.question, probe.says, probe.unit, probe.about)
    return Figure(*facts, "does not apply", "it was left out on request")


def _request(case: Case) -> dict[str, Any]:
    task, goal = case.problem.task, case.problem.goal
    return {
        "goal": goal, "kind": "class" if case.classes else "rows", "classes": list(case.classes), "task": task.name,
        "figure": task.figure, "higher": task.higher, "chance": case.chance if case.labelled else None,
        "rows": {name: len(y) for name, y in case.targets.items()},
        "sampled": {name: len(rows) for name, rows in case.sample.items()},
    }  # fmt: skip


def _losses(case: Case) -> dict[str, Any]:
    """Histograms of losses (less the score) before and after, of members, unseen and forgotten rows, as shares."""
    sets = {"members": "retain", "unseen": "test", "forgotten": "forget"}
    present = {word: on for word, on in sets.items() if on in case.targets}
    if "forgotten" not in present:
        return {}
    looks = {"before": case.original, "after": case.outcome}
    every = {when: {word: -look[on].score.double() for word, on in present.items()} for when, look in looks.items()}
    if "unseen" in present:
        every = {when: {**found, "unseen": found["unseen"][case.unseen]} for when, found in every.items()}
    values = torch.cat([loss for found in every.values() for loss in found.values()])
    low, high = float(values.min()), float(values.quantile(0.99) if len(values) < 1e7 else values.max())
    edges = torch.linspace(low, max(high, low + 1e-6), BINS + 1, dtype=torch.double)
    shares = {when: {word: _histogram(v, edges) for word, v in found.items()} for when, found in every.items()}
    return {"edges": edges.tolist(), **shares}


def _histogram(values: Tensor, edges: Tensor) -> list[float]:
    """Shares of the values by bin; what lies beyond the last edge is counted in the last bin."""
    inside = values.clamp(edges[0], edges[-1])
    counts = torch.histogram(inside, edges).hist
    return [round(share, 6) for share in (counts / max(len(values), 1)).tolist()]


def _per_row(case: Case) -> dict[str, Any]:
    """Columns of ``rows.parquet``: source and id of every row, and for every model score, margin and figure."""
    names = list(case.targets)
    sources = [case.problem.sources[name] for name in names]
    columns: dict[str, Any] = {
        "source": np.repeat(names, [len(source) for source in sources]),
        "id": np.concatenate([source.ids.astype(str) for source in sources]),
    }
    for look in case.looks:
        for what in ("score", "margin", "quality"):
            columns[f"{look.subject.name}: {what}"] = torch.cat([getattr(look[n], what) for n in names]).numpy()
    return columns
