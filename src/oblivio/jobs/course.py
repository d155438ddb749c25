"""A course: one method over one stream, measured after every experience, from which a killed one goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from oblivio.audits.continual import Meter, Outcome
from oblivio.audits.continual.comparison import JOINT
from oblivio.core.files import read_json, write_json
from oblivio.core.plan import Stage
from oblivio.core.run import Watch
from oblivio.core.seeds import mix
from oblivio.data.dataset import Dataset, known_task
from oblivio.data.history import History, Trace
from oblivio.data.streams.experience import Experience, Stream
from oblivio.jobs.network import Network, network
from oblivio.learners.learner import Learner

STATE, KEPT = "learner", "outcome.json"
ROWS = 1000  # of the test rows of a task that a trace looks at


@dataclass(frozen=True, eq=False)
class Course:
    """One method over one stream.

    Attributes:
        name: of the method; ``joint`` learns all experiences as one.
        plan: of the method.
        stream: what is learned.
        model: where it starts; a copy is used.
        seed: of training.
        settings: of the method, for the record.
        trace: steps between two looks at all tasks so far; 0: none.
        budget: bytes that it may carry between tasks, where methods are compared at equal ones.
    """

    name: str
    plan: Stage
    stream: Stream
    model: nn.Module
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    trace: int = 0
    budget: int | None = None

    @property
    def experiences(self) -> Sequence[Experience]:
        """What it meets, in order."""
        return [self.stream.joint] if self.name == JOINT else self.stream.train

    def run(self, folder: Path | None = None, watch: Sequence[Watch] = ()) -> tuple[Learner, Outcome]:
        """Learn, and evaluate after every experience.

        Args:
            folder: where state and figures are kept; called again with the same, it goes on after the last experience
                that was evaluated. None keeps nothing.
            watch: called after every step.
        """
        before = self.kept(folder)
        recorded = 0 if before is None else before.history.records[-1]["turn"]
        if self.trace and folder is not None:
            _drop_broken(folder / STATE, recorded)
        learner = self._learner(folder)
        history, trace = self._history(before)
        meter = Meter(learner, trace)
        if before is None and (trace is not None or self.stream.scenario != "class"):
            history.record(learner)  # the untrained model; among outputs that do not count yet it says nothing
        outcome = before
        watchers: list[Watch] = [*watch, meter, *([trace] if trace else [])]
        for experience in self.experiences:
            learner.learn(experience, watch=watchers)
            if learner.turn < recorded:
                continue
            if before is not None and before.ledger is not None and learner.turn == recorded:
                meter.go_on(before.ledger)
                continue
            history.record(learner)
            meter.close()
            outcome = self._outcome(history, meter)
            if folder is not None:
                write_json(folder / KEPT, outcome.to_json())
        assert outcome is not None
        return learner, outcome

    def kept(self, folder: Path | None) -> Outcome | None:
        """What was found so far, if anything was."""
        there = folder is not None and (folder / KEPT).exists()
        return Outcome.from_json(read_json(folder / KEPT)) if folder is not None and there else None

    def finished(self, folder: Path) -> bool:
        """Whether all experiences were learned and evaluated."""
        found = self.kept(folder)
        return found is not None and found.history.records[-1]["turn"] == len(self.experiences)

    def _learner(self, folder: Path | None) -> Learner:
        place = None if folder is None else folder / STATE
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        return Learner(self.model, self.plan, self.stream.modality, self.seed, folder=place)

    def _history(self, before: Outcome | None) -> tuple[History, Trace | None]:
        """A history with its trace, with all that was measured before."""
        history = History(self.stream.test)
        trace = history.trace(every=self.trace, rows=ROWS) if self.trace else None
        if before is not None:
            known = before.history
            history.records, history.figure, history.higher = known.records, known.figure, known.higher
            if trace is not None and known.traced is not None:
                trace.points, trace.came = known.traced.points, known.traced.came
        return history, trace

    def _outcome(self, history: History, meter: Meter) -> Outcome:
        scenario = self.stream.scenario
        return Outcome(
            self.name, scenario, self.seed, history, meter.ledger(), self.budget, settings=dict(self.settings)
        )


def _drop_broken(state: Path, recorded: int) -> None:
    """A turn that broke off is learned from its beginning: what was traced of it went with the process."""
    turns = {int(place.name[5:]): place for place in state.glob("turn-*")}
    if recorded == 0 or recorded in turns:
        for turn, place in turns.items():
            if turn > recorded:
                shutil.rmtree(place)


Watching = Callable[[Course], Sequence[Watch]]  # for each course what is called after every step

# --- the network


def network_of(stream: Stream, name: str | None = None, options: Mapping[str, Any] | None = None) -> Network:
    """The network for a stream; without a name small-cnn for images of several channels, else mlp."""
    chosen = name or ("small-cnn" if len(stream.inputs) == 3 and stream.inputs[0] > 1 else "mlp")
    rows = Dataset(
        stream.name, stream.train[0].rows, stream.held, known_task(stream.modality), stream.inputs, stream.outputs,
        preprocess=stream.preprocess,
    )  # fmt: skip
    return network(chosen, dict(options or {}), rows)


def start(of: Network, stream: Stream, seed: int) -> nn.Module:
    """The untrained model; what is fitted to rows is fitted to the first experience, for the others have not come."""
    return of.build(stream.train[0].rows, mix(seed, "start"))


def named(net: Network) -> str:
    """A network in words."""
    options = ", ".join(f"{name} {value}" for name, value in net.architecture.options.items())
    return f"{net.architecture.name}{' (' * bool(options)}{options}{')' * bool(options)}"
