"""The audit of a language model: every probe looks at all models, and the policy for texts judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oblivio.audits import policy as policies
from oblivio.audits.audit import Facts, judged, left_out, written
from oblivio.audits.language.case import AUDITED, TextCase, gather
from oblivio.audits.language.memorisation import probability
from oblivio.audits.language.probes import ATTACKS, attacks, known
from oblivio.audits.probe import Figure, Probe, figure
from oblivio.audits.report import Report
from oblivio.audits.subjects import Subject
from oblivio.core.errors import BadInput, nearest
from oblivio.core.problem import Problem

FIGURE = "probability"  # of the true answers: what stands in for a classifier's accuracy
ALWAYS = ("relearn",)  # attacks that are made unless they are left out: without one a hidden memory goes unnoticed


def audit(
    problem: Problem,
    subjects: Sequence[Subject],
    *,
    attack: Sequence[str] = (),
    tolerances: Mapping[str, float] | None = None,
    leave_out: Sequence[str] = (),
    facts: Facts | None = None,
) -> Report:
    """Look at language models, and judge the outcome among them.

    Args:
        problem: the request, on the original's networks: ``forget``, and ``retain``, ``test`` (other knowledge that is
            to stay) and ``holdout`` (texts of the same kind that were never learned), where there are such.
        subjects: one outcome, one original, and any references and controls.
        attack: attacks to make beside relearning, such as prompts, quantize, sample, early.
        tolerances: in place of the policy's own, by figure.
        leave_out: probes that are not made.
        facts: what else the report is to say.

    Raises:
        BadInput: an unknown probe or attack, a tolerance for a figure that does not judge, texts that are not known.
    """
    check(attack, leave_out)
    case = gather(problem, subjects, [*ALWAYS, *attack])
    rules = policies.policy(problem.goal, tolerances, policies.TEXTS)
    made = [_figure(probe, case, leave_out) for probe in known().values()]
    found = written(_request(case), subjects, made, rules, facts or Facts())
    return judged(found, per_row=_per_row(case))


def check(attack: Sequence[str], leave_out: Sequence[str]) -> None:
    """Raises BadInput for an attack or a probe that there is not."""
    for name in attack:
        if name not in (words := attacks()):
            raise BadInput(f"there is no attack {name!r}{nearest(name, words)}")
    for name in leave_out:
        if name not in (probes := known()):
            raise BadInput(f"audit.leave_out: there is no probe {name!r}{nearest(name, probes)}")


def _figure(probe: Probe, case: TextCase, leave_out: Sequence[str]) -> Figure:
    if probe.id in leave_out:
        return left_out(probe)
    if (word := ATTACKS.get(probe.id)) is not None and word not in case.attacks:
        facts = (probe.id, probe.question, probe.says, probe.unit, probe.about)
        return Figure(*facts, "does not apply", f"the attack was not made; ask for it: --attacks {word}")
    return figure(probe, case)  # type: ignore[arg-type]


def _request(case: TextCase) -> dict[str, Any]:
    problem = case.problem
    return {
        "goal": problem.goal, "kind": "rows", "classes": [], "task": problem.task.name, "figure": FIGURE,
        "higher": True, "chance": 0.0, "rows": {name: len(problem.sources[name]) for name in _asked(case)},
        "sampled": {name: len(case.sheets[name]) for name in _asked(case)},
    }  # fmt: skip


def _asked(case: TextCase) -> list[str]:
    return [name for name in AUDITED if name in case.sheets]


def _per_row(case: TextCase) -> dict[str, Any]:
    """Columns of ``rows.parquet``: source and id of every text, and for every model the probability of its answer."""
    names = _asked(case)
    columns: dict[str, Any] = {
        "source": np.repeat(names, [len(case.sheets[name]) for name in names]),
        "id": np.concatenate([case.sheets[name].ids.astype(str) for name in names]),
    }
    for look in case.looks:
        values = [probability(look[name]).numpy() for name in names]
        columns[f"{look.subject.name}: probability"] = np.concatenate(values)
    return columns
