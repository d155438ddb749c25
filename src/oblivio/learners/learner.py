"""Learner: a model that keeps learning and forgetting. One plan for every experience; clocks restart, memories stay."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.part import Part
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run, Watch
from oblivio.core.seeds import mix
from oblivio.core.source import Ids, Source
from oblivio.core.task import Task
from oblivio.data.streams.experience import Experience
from oblivio.learners._turns import Turns
from oblivio.learners.forgetting import Forgotten, Request, carry_out
from oblivio.modules.growing import grow_head
from oblivio.modules.heads import last_linear
from oblivio.sources import as_source
from oblivio.tasks import first_output
from oblivio.tasks.classification import Classification
from oblivio.tasks.incremental import Incremental, Outputs


class Learner:
    """``learn(experience)`` runs the plan on its rows; ``forget(rows)`` takes rows out of all that remembers them.

    Nothing is left half done: learning and forgetting work on copies, which take the place of what was there when they
    are finished.

    Args:
        model: where it starts; a copy is used.
        plan: what is done with every experience; its Parts keep their state from one to the next.
        task: a Task or its name. With an Experience, ``classification`` counts the outputs that its scenario says.
        seed: of all randomness.
        folder: where the state is kept. A new learner with the same arguments goes on from there: experiences that were
            learned are passed over, one that was broken off is finished to the same bits.
        grow: give the last linear layer more outputs where an experience has classes beyond them.
        active: the outputs that the training loss of the scenario ``class`` uses: ``seen``, ``all`` or ``current``.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Stage,
        task: Task | str,
        seed: int = 0,
        *,
        folder: str | Path | None = None,
        grow: bool = True,
        active: str = "seen",
    ) -> None:
        self.problem = Problem(copy.deepcopy(model), task=task, seed=seed)
        self.grow, self.active = grow, active
        self.outputs: Outputs | None = None
        self.learned: list[Ids] = []  # of every experience, less what was forgotten
        self._plan = copy.deepcopy(plan)
        self.parts: dict[str, Part] = Run(copy.deepcopy(plan), self.problem, fresh=False).parts
        self.steps, self.seconds = 0, 0.0
        self._turns = Turns(None if folder is None else Path(folder))

    @property
    def model(self) -> nn.Module:
        """The network as it is now."""
        return self.problem.model

    @property
    def plan(self) -> Part:
        """The plan with its memories."""
        return self.parts["plan"]

    @property
    def turn(self) -> int:
        """How many experiences came."""
        return self.problem.turn

    @property
    def behind(self) -> bool:
        """Whether experiences are passed over, because the folder holds later ones."""
        return self.turn < self._turns.saved

    @property
    def ids(self) -> set[Any]:
        """The ids of all rows that were learned and not forgotten."""
        return {i for ids in self.learned for i in ids.tolist()}

    # --- learning

    def learn(self, experience: Experience | None = None, *, watch: Sequence[Watch] = (), **sources: Any) -> Learner:
        """One experience; the next turn of the same plan.

        Args:
            experience: of a stream; or give its rows by name, such as ``new=(x, y)``.
            watch: called after every step with (run, stage, step).
            sources: more of them, or all.

        Raises:
            BadInput: no rows, another scenario than before, labels that the head cannot hold when growing is off.
            Stopped: NaN, or a watcher ended it; the learner is as it was.
        """
        given = _sources(experience, sources)
        rows = _learned(given)
        outputs = self._begun(experience, rows)
        if self.turn + 1 < self._turns.saved:
            self.problem.turn, self.outputs = self.turn + 1, outputs
            self.learned.append(rows.ids)
            return self
        work = self._fresh(given, outputs)
        run = self._run(work, watch, self._turns.place(work.turn))
        learned = [*self.learned, rows.ids]
        if self._turns.saved == work.turn:
            learned = self._turns.without_forgotten(learned)
            run.resume()
        run.go()
        self._take(work, run, outputs, learned)
        self._turns.finished(work.turn)
        return self

    def _begun(self, experience: Experience | None, rows: Source) -> Outputs | None:
        """Which outputs count from now on."""
        if not len(rows):
            raise BadInput("new: an experience without rows; leave it out of the stream")
        if experience is None or type(self.problem.task) not in (Classification, Incremental):
            return self.outputs
        known = self.outputs or Outputs(experience.scenario, self.active)
        if known.scenario != experience.scenario:
            raise BadInput(f"this learner learns in the scenario {known.scenario!r}, and the experience is of "
                           f"{experience.scenario!r}; use one stream, or a learner each")  # fmt: skip
        if self.outputs is None and self.turn:
            raise BadInput("this learner has learned rows without a scenario; begin with experiences")
        outputs = copy.deepcopy(known)
        outputs.begin(experience.heads)
        return outputs

    def _fresh(self, given: dict[str, Source], outputs: Outputs | None) -> Problem:
        """A copy of the problem at the beginning of the next turn."""
        work = self.problem.copy()
        for name in ("new", "valid"):
            work.sources.pop(name, None)
        for name, source in given.items():
            work.sources[name] = work._named(name, source)
        work.turn += 1
        if outputs is not None:
            work.task = Incremental(outputs)
        if self._turns.saved == work.turn:
            self._turns.replay(work)
        else:
            self._hold(work)
            self._turns.begin(work)
        return work

    def _hold(self, work: Problem) -> None:
        """Give the head an output for every class of the experience."""
        if not isinstance(work.task, Incremental):
            return
        rows = work.source("new")
        width = first_output(work, rows, lambda batch: work.task.forward(work.nets, "model", batch)).shape[1]
        most = max(max(classes) for classes in work.task.outputs.came[-1].values())
        if most < width:
            return
        if not self.grow:
            raise BadInput(f"the experience has class {most} and the model {width} outputs; build it with {most + 1}, "
                           "or let it grow (grow=True)")  # fmt: skip
        work.operate(grow_head, layer=last_linear(work.model), by=most + 1 - width, seed=mix(work.seed, "grow"))

    def _run(self, work: Problem, watch: Sequence[Watch] = (), place: Path | None = None) -> Run:
        """The plan with the memories as they are now, on ``work``."""
        run = Run(copy.deepcopy(self._plan), work, place, watch=watch, fresh=False)
        for path, part in self.parts.items():
            run.parts[path].load(copy.deepcopy(part.save()))
        return run

    def _take(self, work: Problem, run: Run, outputs: Outputs | None, learned: list[Ids]) -> None:
        self.problem, self.parts, self.outputs, self.learned = work, run.parts, outputs, learned
        self.steps, self.seconds = self.steps + run.steps, self.seconds + run.seconds
        self._last = run

    # --- forgetting

    def forget(self, rows: Any, method: str | Stage | None = None, *, retain: Any = None, **settings: Any) -> Forgotten:
        """Take rows out of all that remembers them, and with ``method`` out of the weights.

        Args:
            rows: ids, or rows with ids: ``(x, y, ids)``, a Source, ...
            method: a method of unlearning by its name, or a plan; None leaves the weights as they are, which the
                receipt says. It gets the rows as ``forget``, as they were given or as a memory holds them.
            retain: rows to keep; default: what the memories hold.
            settings: of the method.

        Raises:
            BadInput: ids that were never learned; with a method, rows of which only the ids are known.
        """
        request = Request.of(rows)
        done = self._turns.receipt(self.turn, request.ids)
        if done is not None:
            return done
        self._settled()
        request.known(self.ids)
        work = self.problem.copy()
        run = self._run(work, (), self._turns.place(work.turn))
        receipt = carry_out(request, work, run.parts, method, retain, settings)
        gone = np.asarray(request.ids)
        self._take(work, run, self.outputs, [ids[~np.isin(ids, gone)] for ids in self.learned])
        self._turns.forgotten(work.turn, receipt, run)
        return receipt

    # --- asking

    def predict(self, x: Any, task: int | Tensor | None = None) -> Tensor:
        """Served outputs for inputs of shape (n, ...): logits, those of outputs that do not count at -1e4.

        Args:
            x: inputs.
            task: in the scenario ``task`` the task of the rows, a number or one for each.

        Raises:
            BadInput: a task that the scenario has none of, or none where it needs one.
        """
        self._settled()
        scenario = None if self.outputs is None else self.outputs.scenario
        if task is not None and scenario != "task":
            raise BadInput(
                f"task={task}: in the scenario {scenario!r} nobody says which task a row is of; leave it out"
            )
        if task is None and scenario == "task":
            raise BadInput("in the scenario 'task' every row is of a known task; give task=")
        columns = {"x": torch.as_tensor(x)}
        if task is not None:
            columns["task"] = torch.as_tensor(task).expand(len(columns["x"]))
        return self.problem.predict(as_source(columns, "asked"))

    def qualities(self, rows: Any, views: Sequence[str] = ("served",)) -> dict[str, Tensor]:
        """The task's figure (accuracy, error) of every row under each view of the outputs, from one pass."""
        self._settled()
        return self.problem.qualities(as_source(rows, "asked"), views)

    def _settled(self) -> None:
        if self.behind:
            raise BadInput(f"the folder holds {self._turns.saved} experiences and only {self.turn} came again; go on "
                           "with the stream first")  # fmt: skip


def _sources(experience: Experience | None, more: dict[str, Any]) -> dict[str, Source]:
    given = dict(more)
    if experience is not None:
        if not isinstance(experience, Experience):
            raise BadInput(f"learn takes an Experience of a stream, or new=rows; this is a {type(experience).__name__}")
        given |= {"new": experience.rows, "valid": experience.valid}
    if all(value is None for value in given.values()):
        raise BadInput("learn: give an experience, or its rows as new=")
    return {name: as_source(value, name) for name, value in given.items() if value is not None}


def _learned(given: dict[str, Source]) -> Source:
    """The rows that an experience brings: ``new``, or the first that were given."""
    return given.get("new", next(iter(given.values())))
