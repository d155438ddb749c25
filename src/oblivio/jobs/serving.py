"""Whether a method can serve a request: asked before any work."""

from __future__ import annotations

from typing import Literal

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.data.checks import check as check_rows
from oblivio.data.columns import column
from oblivio.data.dataset import TASKS
from oblivio.modules.table import TablePreprocess
from oblivio.registry import Spec
from oblivio.tasks import first_output

SOURCES = {
    "forget": "the rows to forget", "retain": "the rows to keep", "new": "new rows to learn",
    "replay": "old rows to repeat", "proxy": "rows that stand in for those that are gone",
    "valid": "held-out rows (in a job: data.valid)", "test": "test rows",
}  # fmt: skip


def kind(problem: Problem) -> Literal["class", "rows"]:
    """``class`` where no label of a forgotten row occurs in the retained ones; else, and without classes, ``rows``."""
    return "class" if forgotten_classes(problem) else "rows"


def forgotten_classes(problem: Problem) -> list[int]:
    """The classes that go entirely: none, unless every forgotten row is of a class that no retained row has."""
    if problem.task.name not in ("classification", "binary"):
        return []
    forget, retain = (problem.sources.get(name) for name in ("forget", "retain"))
    if forget is None or retain is None or "y" not in forget.columns or "y" not in retain.columns:
        return []
    gone, kept = np.unique(column(forget, "y")), np.unique(column(retain, "y"))
    return [] if np.isin(gone, kept).any() else [int(c) for c in gone]


def check(problem: Problem, spec: Spec | None = None) -> None:
    """Refuse a problem that the method cannot serve, or rows that no model can.

    Args:
        problem: the request.
        spec: of the method; None for a plan of the user's own, of which nothing is known.

    Raises:
        BadInput: the task or kind of request is not one the method serves, a source or record that it needs is
            missing, or rows have NaN, another shape, or labels without an output.
    """
    forgets = spec is None or spec.kind != "protection"
    if forgets and "forget" not in problem.sources:
        raise BadInput("there are no rows to forget; give forget=")
    if spec is not None:
        _check_served(spec, problem, forgets)
        for need in spec.needs:
            _check_need(spec, need, problem)
    _check_rows(problem)


def refusal(problem: Problem, spec: Spec) -> str | None:
    """Why the method cannot serve the problem, as ``check`` says it; None where it can."""
    try:
        check(problem, spec)
    except BadInput as error:
        return str(error)
    return None


def _check_served(spec: Spec, problem: Problem, forgets: bool) -> None:
    if problem.task.name not in spec.tasks:
        raise BadInput(f"{spec.id} is for {', '.join(spec.tasks)}; this is a {problem.task.name}")
    asked = kind(problem) if forgets else ""
    if forgets and asked not in spec.serves and not (problem.goal == "clean" and "clean" in spec.serves):
        words = {"class": "requests to forget whole classes", "rows": "requests to forget some rows of a class"}
        why = f": {spec.refusal}" if spec.refusal else ""
        raise BadInput(f"{spec.id} does not serve {words[asked]}{why}")


def _check_need(spec: Spec, need: str, problem: Problem) -> None:
    """``need`` is a source, a record, or several of these with ``|`` between them."""
    names = need.split("|")
    held = [name for name in names if name in problem.records or len(problem.sources.get(name, ()))]
    if not held:
        raise BadInput(f"{spec.id} needs {' or '.join(map(_told, names))}")
    source = problem.sources.get(held[0])
    if source is not None and spec.labels and need != "proxy" and "y" not in source.columns:
        raise BadInput(f"{spec.id} needs labels, and {held[0]} has none: give it a column y")


def _told(need: str) -> str:
    if need in SOURCES:
        return f"{SOURCES[need]}: give {need}="
    return f"the record {need!r}, made at training by records.make({need!r}, problem): give records={{{need!r}: ...}}"


def _check_rows(problem: Problem) -> None:
    name = problem.task.name
    task = next((known for known in TASKS if known == name), None)
    if task is None:
        return
    outputs, missing = _outputs(problem), any(isinstance(m, TablePreprocess) for m in problem.model.modules())
    for source_name, source in problem.sources.items():
        if len(source):
            check_rows(source, source_name, task=task, outputs=outputs, missing=missing)


def _outputs(problem: Problem) -> int:
    """Outputs of the model for one row."""
    rows = problem.sources.get("forget") or problem.source("retain")
    out = first_output(problem, rows, lambda batch: problem.served(problem.nets, batch))
    return out.shape[-1] if out.dim() > 1 else 1
