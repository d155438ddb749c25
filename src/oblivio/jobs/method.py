"""From a method's name, settings and pieces to its plan, and from a plan to a changed copy of the problem."""

from __future__ import annotations

import dataclasses
import resource
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from oblivio import methods
from oblivio.core.errors import BadInput
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run, Watch
from oblivio.core.where import Where
from oblivio.jobs.guards import Watcher
from oblivio.jobs.job import Guards
from oblivio.registry import TEXT, Spec

Change: TypeAlias = Callable[[Stage], Stage]
Piece: TypeAlias = "str | tuple[str, Mapping[str, Any]] | Change"


@dataclass(frozen=True)
class Chosen:
    """A plan under a name, with all its settings; ``spec`` is that of the registered method it comes from, if any."""

    plan: Stage
    name: str
    settings: dict[str, Any]
    spec: Spec | None = None


def choose(
    method: str | Stage,
    settings: Mapping[str, Any],
    pieces: Iterable[Piece] = (),
    kind: str = "unlearning",
    task: str = "",
    adapter: Where | None = None,
) -> Chosen:
    """The plan of a method with these settings and pieces on it.

    Args:
        method: its name, or a plan.
        settings: of the method; those left out have the defaults for ``task``.
        pieces: changes of the plan, in order.
        kind: of method that is wanted.
        task: name of the problem's task.
        adapter: what alone may move, such as ``where.lora()``.

    Raises:
        BadInput: an unknown method, setting or piece (with the nearest name), a method of another kind, settings for
            a plan that has them already.
    """
    chosen = _named(method, settings, kind, task) if isinstance(method, str) else _given(method, settings)
    plan = chosen.plan if adapter is None else chosen.plan.but(where=adapter)
    for piece in pieces:
        plan = _change(piece)(plan)
    return dataclasses.replace(chosen, plan=plan)


def _named(name: str, settings: Mapping[str, Any], kind: str, task: str) -> Chosen:
    spec = methods.spec(name)
    if spec.kind != kind:
        raise BadInput(f"{name} is of the kind {spec.kind}; one of the kind {kind} is needed here")
    given = {**(spec.text if task in TEXT else {}), **settings}
    return Chosen(methods.registry.get(name)(**given), name, {**spec.defaults(), **given}, spec)


def _given(plan: Stage, settings: Mapping[str, Any]) -> Chosen:
    if not isinstance(plan, Stage):
        raise BadInput(f"a method is a name or a plan such as methods.salun(); this is a {type(plan).__name__}")
    if settings:
        raise BadInput(f"a plan has its settings already; give {', '.join(settings)} where it is made")
    return Chosen(plan, "plan", {})


def _change(piece: Piece) -> Change:
    if callable(piece):
        return piece
    name, settings = (piece, {}) if isinstance(piece, str) else piece
    if (spec := methods.spec(name)).kind != "piece":
        raise BadInput(f"{name} is a method of its own ({spec.kind}), not a piece that changes another")
    change: Change = methods.registry.get(name)(**settings)
    return change


def apply(
    plan: Stage,
    problem: Problem,
    folder: Path | None = None,
    *,
    guards: Guards | None = None,
    watch: Sequence[Watch] = (),
) -> tuple[Problem, float]:
    """The problem after the plan, on copies of its networks, and the seconds that took.

    Args:
        plan: what to do.
        problem: stays as it is.
        folder: where checkpoints lie, from which a killed run goes on. None keeps none.
        guards: when to stop.
        watch: called after every step.

    Raises:
        Stopped: by a guard or NaN.
    """
    changed = problem.copy()
    changed.passes = {}
    guard = Watcher(guards or Guards(), problem)
    run = Run(plan, changed, folder, watch=(guard, *watch))
    (run if folder is None else run.resume()).go()
    guard.finish(run)
    return changed, run.seconds


def peak(device: torch.device) -> int:
    """The most memory in bytes that was in use so far: on the accelerator, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
