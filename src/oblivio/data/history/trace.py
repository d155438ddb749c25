"""Trace: accuracy on every task so far, every few steps of training, always on the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator
from oblivio.core.source import Source
from oblivio.data.history import gaps
from oblivio.data.history.learned import evaluated, stretches, tasks_of
from oblivio.data.history.metrics import Array, lca
from oblivio.data.streams.experience import chained

if TYPE_CHECKING:
    from oblivio.core.plan import Stage
    from oblivio.core.run import Run
    from oblivio.core.step import Step

WINDOWS = (10, 100)  # evaluations of windowed forgetting and plasticity
BATCHES = 10  # of the learning curve area


class Points:
    """A trace as it was taken: accuracies and their standard errors, point by point.

    Attributes:
        every: steps between evaluations.
        sizes: how many rows of each task are used.
        came: of each task that came the turn in which it first did, in that order.
        points: ``turn``; ``step`` of that turn, 0 before the first; ``end``: None in mid-turn, at its end the tasks
            that it brought; ``values`` and ``errors``, one a task, None before it came (at the end of turns all are
            known).
    """

    def __init__(
        self, every: int, sizes: Sequence[int], came: Mapping[int, int], points: Sequence[Mapping[str, Any]]
    ) -> None:
        self.every, self.sizes = every, list(sizes)
        self.came: dict[int, int] = dict(came)
        self.points: list[dict[str, Any]] = [dict(point) for point in points]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        came = [[task, turn] for task, turn in self.came.items()]
        return {"every": self.every, "sizes": self.sizes, "came": came, "points": self.points}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Points:
        """The inverse of ``to_json``."""
        return Points(facts["every"], facts["sizes"], dict(facts["came"]), facts["points"])

    @property
    def steps(self) -> list[int]:
        """The step of every point, counted over all turns."""
        last: dict[int, int] = {}
        for point in self.points:
            last[point["turn"]] = max(last.get(point["turn"], 0), point["step"])
        return [sum(n for t, n in last.items() if t < p["turn"]) + p["step"] for p in self.points]

    @property
    def ends(self) -> list[int]:
        """The point at the end of every turn; that of the untrained model is none."""
        return [n for n, point in enumerate(self.points) if point["end"] is not None and point["turn"] > 0]

    def line(self, task: int, what: str = "values") -> tuple[list[int], Array]:
        """Steps and accuracies (or ``errors``) of one task since it came, its last value before that included."""
        first = self.came.get(task, len(self.points))
        known = [
            n
            for n, p in enumerate(self.points)
            if p["turn"] >= first or (p["turn"] == first - 1 and p["end"] is not None)
        ]
        steps = self.steps
        return [steps[n] for n in known], np.array([self.points[n][what][task] for n in known], dtype=np.float64)

    def table(self) -> Array:
        """A[i, n], tasks in the order in which they came; NaN where a task had not come and was not evaluated."""
        rows = [[point["values"][task] for point in self.points] for task in self.came]
        return np.array(rows, dtype=np.float64)  # None becomes NaN

    def figures(self, sign: float) -> dict[str, Callable[[], float]]:
        """Every figure by its name, yet to be worked out; ``sign`` is -1 where less is better."""
        table, ends = sign * self.table(), self.ends
        begun = [next((n for n, p in enumerate(self.points) if p["turn"] == turn), 0) for turn in self.came.values()]
        found: dict[str, Callable[[], float]] = {
            "min_acc": lambda: sign * gaps.min_acc(table, self._task_ends()),
            "wc_acc": lambda: sign * (gaps.wc_acc(table, self._task_ends()) if len(ends) > 1 else self._now(table)),
            "gap_depth": lambda: gaps.mean_gap(table, self._task_ends())[0],
            "gap_recovery": lambda: gaps.mean_gap(table, self._task_ends())[1],
            f"lca_{BATCHES}": lambda: sign * lca(self._curve(table)),
        }
        for d in WINDOWS:
            found[f"wf_{d}"] = lambda d=d: gaps.wf(table, begun, d)  # type: ignore[misc]
            found[f"wp_{d}"] = lambda d=d: gaps.wp(table, begun, d)  # type: ignore[misc]
        return found

    def _task_ends(self) -> list[int]:
        """The ends of tasks, in the order in which they came; BadInput where a task has no one end."""
        ends = self.ends
        last = stretches([self.points[n]["end"] for n in ends])
        if list(last) != list(self.came):
            raise BadInput("it needs history.record(learner) after every turn")
        return [ends[place] for place in last.values()]

    def _now(self, table: Array) -> float:
        """The average accuracy at the end of the one turn there was: nothing came before that could get worse."""
        if not self.ends:
            raise BadInput("no turn was closed by history.record(learner)")
        return float(table[:, self.ends[-1]].mean())

    def _curve(self, table: Array) -> Array:
        if self.every != 1:
            raise BadInput(f"it needs the first {BATCHES} batches of every task; trace with every=1")
        ends = self._task_ends()
        if self.points[0]["turn"] > 0:
            raise BadInput("it begins before the first batch; call history.record(learner) before the first learn")
        return gaps.curve(table, ends, BATCHES)


class Trace(Points):
    """A watcher for ``learner.learn(experience, watch=[trace])``; made by ``History.trace``.

    It only evaluates: weights, batch-norm statistics, draws and the counted cost of the run stay as they are.
    """

    def __init__(self, parts: Sequence[Source], numbers: Sequence[int], every: int, rows: int, seed: int) -> None:
        if every < 1 or rows < 1:
            raise BadInput(f"a trace every {every} steps on {rows} rows a task: both must be at least 1")
        self.places = [_sample(len(part), rows, seed, i) for i, part in enumerate(parts)]
        super().__init__(every, [len(at) for at in self.places], {}, [])
        self.numbers = list(numbers)
        self.rows = chained([part.take(at) for part, at in zip(parts, self.places, strict=True)])
        self._turn, self._step = 0, 0
        self.seconds = 0.0  # that evaluation took within runs

    def __call__(self, run: Run, stage: Stage, step: Step) -> None:
        """After every step of a run."""
        problem = run.problem  # a learner's own one is that before the turn until the turn is over
        if problem.turn != self._turn:
            self._turn = problem.turn
            self._meet([self.numbers.index(task) for task in tasks_of(problem) if task in self.numbers])
        elif run.steps <= self._step:  # the turn was broken off, and begins again
            self.points = [p for p in self.points if p["turn"] != problem.turn or p["step"] < run.steps]
        self._step = run.steps
        if run.steps % self.every == 0:
            began = time.monotonic()
            values = evaluated(problem, self.rows, ("served",))["served"]
            self._add(values.split(self.sizes))
            self.seconds += time.monotonic() - began

    def close(self, turn: int, tasks: Sequence[int], values: Sequence[Tensor]) -> None:
        """The end of a turn; ``values``: figures of all test rows of every task, of which it takes its own."""
        self._turn, self._step = turn, self._step if turn == self._turn else 0
        self._meet(tasks)
        last = self.points[-1] if self.points else {"turn": -1}
        if last["turn"] == turn and last["step"] == self._step:
            self.points.pop()  # what followed the last step may have changed the model
        self._add([each[at] for each, at in zip(values, self.places, strict=True)], end=list(tasks))

    def _meet(self, tasks: Sequence[int]) -> None:
        for task in tasks:
            self.came.setdefault(task, self._turn)

    def _add(self, figures: Sequence[Tensor], end: list[int] | None = None) -> None:
        known = [each if end is not None or i in self.came else None for i, each in enumerate(figures)]
        self.points.append({
            "turn": self._turn, "step": self._step, "end": end,
            "values": [None if each is None else float(each.mean()) for each in known],
            "errors": [None if each is None else _error(each) for each in known],
        })  # fmt: skip


def _error(values: Tensor) -> float:
    """The standard error of a mean; of accuracies that is sqrt(p (1 - p) / n)."""
    return float(values.std(correction=0)) / len(values) ** 0.5


def _sample(n: int, rows: int, seed: int, task: int) -> Tensor:
    """Places of at most ``rows`` of ``n`` rows, the same whenever asked."""
    order = torch.randperm(n, generator=generator("trace", seed, task))
    return order[:rows].sort().values
