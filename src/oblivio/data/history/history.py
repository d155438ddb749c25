"""History: the accuracy matrix of a learner over a stream, and its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.data.history import metrics
from oblivio.data.history.learned import Evaluated, evaluated, stretches, tasks_of
from oblivio.data.history.metrics import Array, Values
from oblivio.data.history.trace import Points, Trace
from oblivio.data.streams.experience import Experience, chained

LEVELS = ("acc", "aia", "acc_pooled", "aia_pooled", "la")  # in the task's own unit; the others are differences


class History:
    """What ``record`` measures: ``R[t, i]``, the figure on task i after turn t, from one pass over all test rows.

    In the scenario ``class`` the same pass gives two matrices: ``served``, among all classes so far, and ``task``, with
    the logits of other tasks masked at test only.

    Args:
        test: the test rows of every task, ``stream.test``.

    Attributes:
        tasks: of each test set ``task``, ``name``, ``classes`` and number of ``rows``.
        records: of each turn ``turn``, the tasks it ``learned``, and the ``figures`` by view.
        figure, higher: what is measured, and whether more of it is better.
        traced: the trace, if one was asked for.

    Example:
        >>> from oblivio import data
        >>> history = data.History(data.split("digits", tasks=5).test)
        >>> len(history.tasks), history.views
        (5, ('served', 'task'))
    """

    def __init__(self, test: Sequence[Experience]) -> None:
        if not test:
            raise BadInput("a history needs the test rows of at least one task; give stream.test")
        self.test: Sequence[Experience] = tuple(test)
        self.scenario = str(test[0].scenario)
        self.figure, self.higher = "accuracy", True
        self.tasks: list[dict[str, Any]] = [
            {"task": e.task, "name": e.name, "classes": list(e.classes), "rows": len(e.rows)} for e in test
        ]
        self.records: list[dict[str, Any]] = []
        self.traced: Points | None = None
        self._rows = chained([e.rows for e in test])

    # --- measuring

    @property
    def views(self) -> tuple[str, ...]:
        """``served``, and in the scenario ``class`` also ``task``, unless to know the task is to know the class."""
        told = self.scenario == "class" and all(len(task["classes"]) > 1 for task in self.tasks)
        return ("served", "task") if told else ("served",)

    def record(self, learner: Evaluated, learned: Sequence[int] | None = None) -> History:
        """Evaluate every task as the learner now is; before the first ``learn`` it is the untrained baseline.

        Recording again in the same turn replaces what was recorded. Call it after every ``learn``; where that is too
        often (a stream of single batches), say what came since the last record.

        Args:
            learner: what is evaluated, as ``ob.learner`` makes it.
            learned: the tasks that came since the last record; by default those of the column ``task`` of its rows.

        Raises:
            BadInput: turns were left out, a task without test rows, figures that are no numbers, or a history that was
                read from JSON without test rows.
        """
        turn = learner.problem.turn
        came = self._places(tasks_of(learner.problem) if learned is None else learned)
        self._follows(turn, told=learned is not None)
        values = evaluated(learner, self._rows, self.views)
        split = {view: v.split([task["rows"] for task in self.tasks]) for view, v in values.items()}
        figures = {view: [float(v.mean()) for v in each] for view, each in split.items()}
        self.figure, self.higher = learner.problem.task.figure, learner.problem.task.higher
        self.records = [record for record in self.records if record["turn"] != turn]
        self.records.append({"turn": turn, "learned": came, "figures": figures})
        if isinstance(self.traced, Trace):
            self.traced.close(turn, came, split["served"])
        return self

    def _follows(self, turn: int, told: bool) -> None:
        """Whether a turn may be recorded; where turns were left out, somebody must have told what they brought."""
        if not self.test:
            raise BadInput("this history was read from JSON and has no test rows; make one with History(stream.test)")
        last = self.records[-1]["turn"] if self.records else 0
        if turn < last or (turn > last + 1 and not told):
            raise BadInput(f"turn {turn} comes after turn {last}; call history.record(learner) after every learn, or "
                           "say with learned= which tasks the turns since then brought")  # fmt: skip

    def _places(self, tasks: Sequence[int]) -> list[int]:
        """Where the test rows of these tasks stand."""
        known = {task["task"]: place for place, task in enumerate(self.tasks)}
        if missing := [task for task in tasks if task not in known]:
            raise BadInput(f"no test rows of task {missing[0]}; there are those of {', '.join(map(str, known))}")
        return [known[task] for task in tasks]

    def trace(self, every: int = 1, rows: int = 1000, seed: int = 0) -> Trace:
        """A watcher that evaluates the tasks so far every few steps: ``learner.learn(experience, watch=[trace])``.

        Args:
            every: steps between evaluations.
            rows: at most so many test rows of each task; the error of a figure is that of such a sample.
            seed: of their drawing.

        Raises:
            BadInput: something was recorded already.
        """
        if self.records:
            raise BadInput("a trace begins before the first record; call history.trace() first")
        made = Trace([e.rows for e in self.test], [task["task"] for task in self.tasks], every, rows, seed)
        self.traced = made
        return made

    # --- matrices

    @property
    def matrix(self) -> Array:
        """R as it is served, shape (turns, tasks), without the untrained baseline."""
        return self.of("served")

    def of(self, view: str) -> Array:
        """R in a view. Raises BadInput for one that was not recorded."""
        if view not in self.views:
            raise BadInput(f"there is no view {view!r} of a stream of scenario {self.scenario}; take {self.views}")
        rows = [record["figures"][view] for record in self.records if record["turn"] > 0]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.tasks))

    def baseline(self, view: str = "served") -> Array | None:
        """b: the untrained model's figures, shape (tasks,); None where they were not recorded."""
        found = [r["figures"][view] for r in self.records if r["turn"] == 0]
        return np.array(found[0], dtype=np.float64) if found else None

    @property
    def order(self) -> list[int]:
        """Places of the tasks so far, in the order in which they came."""
        return list(dict.fromkeys(task for record in self.records for task in record["learned"]))

    # --- figures

    def metrics(
        self, view: str = "served", *, joint: Values | None = None, separate: Values | None = None
    ) -> dict[str, float]:
        """Every figure that applies, by name; ``absent`` says why the others do not.

        Where less is better (an error) levels are in the task's unit and differences are signed as for accuracy:
        ``bwt`` below 0 is forgetting. Names: see ``oblivio.data.history.metrics`` and ``gaps``.

        Args:
            view: ``served``, or ``task`` in the scenario ``class``.
            joint: J[t], the figure on task t of a model trained jointly on tasks 1 to t, for ``im``, the last of them.
            separate: S[i], the figure on task i of a net of its own, for ``plasticity``.
        """
        return self._figures(view, joint, separate)[0]

    def absent(
        self, view: str = "served", *, joint: Values | None = None, separate: Values | None = None
    ) -> dict[str, str]:
        """The figures that do not apply, and why."""
        return self._figures(view, joint, separate)[1]

    def _figures(
        self, view: str, joint: Values | None, separate: Values | None
    ) -> tuple[dict[str, float], dict[str, str]]:
        sign = 1.0 if self.higher else -1.0
        asked: dict[str, Callable[[], float]] = {
            name: lambda f=f, s=sign if name in LEVELS else 1.0: s * f()  # type: ignore[misc]
            for name, f in self._asked(view, sign, joint, separate).items()
        }
        if self.traced is not None and view == "served":
            asked |= self.traced.figures(sign)
        figures, why = {}, {}
        for name, work in asked.items():
            try:
                figures[name] = work()
            except BadInput as error:
                why[name] = str(error)
        return figures, why

    def _asked(
        self, view: str, sign: float, joint: Values | None, separate: Values | None
    ) -> dict[str, Callable[[], float]]:
        """The figures of the matrix, yet to be worked out; more is better in all that they take."""
        whole = sign * self.of(view)
        sizes = np.array([task["rows"] for task in self.tasks], dtype=np.float64)

        def R() -> Array:
            return self._by_task(whole)

        def given(values: Values | None, what: str) -> Array:
            if values is None:
                raise BadInput(f"no figures of {what} were given")
            return sign * np.asarray(values, dtype=np.float64)

        return {
            "acc": lambda: self._averages(whole)[-1],
            "aia": lambda: float(np.mean(self._averages(whole))),
            "acc_pooled": lambda: self._averages(whole, sizes)[-1],
            "aia_pooled": lambda: float(np.mean(self._averages(whole, sizes))),
            "la": lambda: metrics.la(R()),
            "bwt": lambda: metrics.bwt(R()),
            "fm": lambda: metrics.fm(R()),
            "fm_clamped": lambda: metrics.fm(R(), clamped=True),
            "fwt": lambda: metrics.fwt(R(), self._untrained(view, sign)),
            "slope": lambda: metrics.slope(R()),
            "im": lambda: float(metrics.intransigence(R(), given(joint, "models trained jointly"))[-1]),
            "plasticity": lambda: metrics.plasticity(R(), given(separate, "nets of their own")),
        }

    def _averages(self, whole: Array, sizes: Array | None = None) -> list[float]:
        """ACC_t after every turn: over the tasks so far, however many a turn brought."""
        seen: list[int] = []
        found = []
        for row, record in zip(whole, (r for r in self.records if r["turn"] > 0), strict=True):
            seen += [task for task in record["learned"] if task not in seen]
            values = metrics.finite("R", row[seen], (len(seen),))
            found.append(float(np.average(values, weights=None if sizes is None else sizes[seen])))
        if not found:
            raise BadInput("nothing was recorded after a learn")
        return found

    def _by_task(self, whole: Array) -> Array:
        """R with one row and one column a task, that of its last turn; BadInput where a task has no one end."""
        ends = stretches([record["learned"] for record in self.records if record["turn"] > 0])
        return np.asarray(whole[list(ends.values())][:, list(ends)])

    def _untrained(self, view: str, sign: float) -> Array:
        if self.scenario == "class":
            raise BadInput("a task that has not come has outputs that do not count yet: forward transfer means nothing")
        found = self.baseline(view)
        if found is None:
            raise BadInput("the untrained model was not recorded; call history.record(learner) before the first learn")
        return sign * found[self.order]

    # --- as text and JSON

    def table(self) -> str:
        """The matrix and the figures as text."""
        from oblivio.data.history.text import table

        return table(self)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"History({len(self.tasks)} tasks, {len(self.matrix)} turns, {self.scenario}-incremental)"

    def to_json(self) -> dict[str, Any]:
        """All that was measured, as JSON can hold it; no rows."""
        facts = {name: getattr(self, name) for name in ("scenario", "figure", "higher", "tasks", "records")}
        return {**facts, "trace": None if self.traced is None else self.traced.to_json()}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> History:
        """The inverse of ``to_json``: it can be read and compared, and records no more.

        Raises:
            BadInput: something else than ``to_json`` gave.
        """
        made = cls.__new__(cls)
        try:
            made.scenario, made.figure, made.higher = facts["scenario"], facts["figure"], facts["higher"]
            made.tasks, made.records = list(facts["tasks"]), list(facts["records"])
            made.test, made.traced = (), None if facts["trace"] is None else Points.from_json(facts["trace"])
        except (KeyError, TypeError) as error:
            raise BadInput(f"this is no history: {error!r}; give what History.to_json() returned") from None
        return made
