"""What a history asks of a learner: figures of rows, and which tasks its last experience brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.source import Source


class Evaluated(Protocol):
    """A learner as far as it is evaluated."""

    @property
    def problem(self) -> Problem:
        """What it works on, as it now is."""
        ...

    def qualities(self, rows: Source, views: tuple[str, ...]) -> dict[str, Tensor]:
        """The task's figure of every row, by view, from one pass."""
        ...


def evaluated(learner: Evaluated | Problem, source: Source, views: tuple[str, ...]) -> dict[str, Tensor]:
    """Figures of all rows in float64 by view; the pass is not booked, for it is no cost of the method.

    Raises:
        BadInput: a figure that is no number, as of a model that diverged.
    """
    problem = learner if isinstance(learner, Problem) else learner.problem
    rows = source.to(problem.team.device)
    with problem.uncounted():
        found = {view: values.double().cpu() for view, values in learner.qualities(rows, views).items()}
    for view, values in found.items():
        if len(values) != len(source) or not bool(values.isfinite().all()):
            raise BadInput(f"{len(values)} figures of view {view!r} for {len(source)} rows, or one that is no number")
    return found


def tasks_of(problem: Problem) -> list[int]:
    """The tasks of the rows that were learned last, from their column ``task``; none before the first experience.

    Raises:
        BadInput: rows without that column.
    """
    if problem.turn == 0:
        return []
    source = problem.sources.get("new")
    if source is None or "task" not in source.columns:
        raise BadInput("what was learned last has no column 'task'; say with learned= which tasks it brought")
    marks: list[Tensor] = [batch["task"] for batch in source.batches(1 << 16)]
    return sorted(set(torch.cat(marks).tolist()))


def stretches(brought: Sequence[Sequence[int]]) -> dict[int, int]:
    """The last turn, by its place in ``brought``, of each task, where every task came in one stretch of turns.

    >>> stretches([[0], [0], [1]])
    {0: 1, 1: 2}

    Raises:
        BadInput: turns of several tasks, tasks that came again, or no turn: then a task has no one end.
    """
    last: dict[int, int] = {}
    for place, tasks in enumerate(brought):
        again = len(tasks) == 1 and tasks[0] in last and last[tasks[0]] != place - 1
        if len(tasks) != 1 or again:
            raise BadInput(f"it needs turns of one task each, and no task that comes again; turn {place + 1} brought "
                           f"{', '.join(map(str, tasks)) or 'nothing'}")  # fmt: skip
        last[tasks[0]] = place
    if not last:
        raise BadInput("it needs turns of one task each; nothing was recorded after a learn")
    return last
