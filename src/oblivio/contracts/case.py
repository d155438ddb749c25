"""One plan on one tiny problem, and what the properties need to look at it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from oblivio import records
from oblivio.contracts.problems import Tiny
from oblivio.core.descent import Descent
from oblivio.core.part import walk
from oblivio.core.plan import Cycle, Edit, Plan, Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run, Watch

Bits = dict[str, Tensor]
LATER = 2  # the turn of a plan that learns experiences: one before which there was something to keep
PROPERTIES: dict[str, Callable[[Case], Iterator[str]]] = {}  # in the order in which they are looked at


def prop(fn: Callable[[Case], Iterator[str]]) -> Callable[[Case], Iterator[str]]:
    """Enter a property in the list; it yields a message for everything that is wrong."""
    PROPERTIES[fn.__name__] = fn
    return fn


class Planted(Exception):
    """Raised by a property itself, to see who lets it through."""


@dataclass(frozen=True, eq=False)
class Case:
    """``make`` gives the plan afresh; ``needs`` are the sources and records it says it needs, ``a|b`` is either."""

    make: Callable[[], Stage]
    needs: tuple[str, ...]
    tiny: Tiny
    variant: str = ""
    changed: Mapping[str, list[tuple[Stage, Stage]]] = field(default_factory=dict)  # plans that differ in one setting

    @property
    def name(self) -> str:
        """What it is called where it fails."""
        return f"{self.tiny.name}, {self.variant}" if self.variant else self.tiny.name

    def problem(self, seed: int = 0) -> Problem:
        """The problem afresh, with the records that the method says it needs."""
        problem = self.tiny.problem(seed, [name for name in self.needs if name in records.names()])
        problem.turn = LATER if "new" in "|".join(self.needs).split("|") else 0
        return problem

    def plan(self) -> Stage:
        """The plan afresh, its Descents and Cycles cut short."""
        return shortened(self.make())

    def run(self, plan: Stage | None = None, problem: Problem | None = None, watch: Sequence[Watch] = ()) -> Problem:
        """The problem after the plan."""
        return Run(plan or self.plan(), problem or self.problem(), watch=watch).go()

    @cached_property
    def finished(self) -> Run:
        """A run of the plan as it is."""
        run = Run(self.plan(), self.problem())
        run.go()
        return run

    @property
    def outcome(self) -> Problem:
        """After the plan as it is; not to be changed."""
        return self.finished.problem

    @cached_property
    def bits(self) -> Bits:
        """The outcome's weights and buffers."""
        return bits(self.outcome)

    @cached_property
    def forwards(self) -> int:
        """How many forwards the plan makes through the task."""
        problem, seen = self.problem(), [0]
        through(problem, lambda _: seen.__setitem__(0, seen[0] + 1))
        self.run(problem=problem)
        return seen[0]


def shortened(plan: Stage, batch: int = 8, epochs: int = 2, rounds: int = 3) -> Stage:
    """A copy that takes little time: no more than so many rows a step, epochs and rounds."""
    plan = copy.deepcopy(plan)
    for _, part in walk(plan):
        if isinstance(part, Descent):
            part.batch = part.batch and min(part.batch, batch)
            part.epochs = min(part.epochs, epochs) if isinstance(part.epochs, (int, float)) else part.epochs
            part.steps = min(part.steps, 4 * batch) if isinstance(part.steps, int) else part.steps
        elif isinstance(part, Cycle):
            part.rounds = min(part.rounds, rounds) if isinstance(part.rounds, int) else _at_most(rounds, part.rounds)
    return plan


def _at_most(most: int, rounds: Callable[[Problem], int]) -> Callable[[Problem], int]:
    return lambda problem: min(rounds(problem), most)


def below(plan: Stage, kind: type[Any]) -> list[Any]:
    """The stages of this kind in a plan, in order."""
    return [part for _, part in walk(plan) if isinstance(part, kind)]


def stages(plan: Stage) -> list[Stage]:
    """The stages that follow each other."""
    return plan.stages if isinstance(plan, Plan) else [plan]


def edits(plan: Stage) -> list[Edit]:
    """What of a plan is done without descent."""
    return [stage for stage in stages(plan) if isinstance(stage, Edit)]


def bits(problem: Problem) -> Bits:
    """Copies of all weights and buffers, by name."""
    return {name: tensor.detach().clone() for name, tensor in problem.nets.tensors().items()}


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names whose bits differ, or that only one of them has."""
    return sorted(n for n in a.keys() | b.keys() if n not in a or n not in b or not same_bits(a[n], b[n]))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal shapes, types and bits; a NaN is equal to itself."""
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def through(problem: Problem, look: Callable[[Any], None]) -> None:
    """Call ``look(batch)`` before each forward of the problem's task."""
    task = copy.copy(problem.task)
    forward = task.forward

    def seen(nets: Any, net: str, batch: Any) -> Tensor:
        look(batch)
        return forward(nets, net, batch)

    task.forward = seen  # type: ignore[method-assign]
    problem.task = task


def failing(problem: Problem, at: int) -> None:
    """Raise at the forward with this number, counted from 0, and at all that follow."""
    seen = iter(range(1 << 30))

    def look(_: Any) -> None:
        if next(seen) >= at:
            raise Planted(f"forward {at}")

    through(problem, look)


def first_steps(watch: Callable[..., None]) -> Watch:
    """Watch the first step of every stage alone."""
    known: set[str] = set()

    def once(run: Run, stage: Stage, step: Any) -> None:
        if stage.place not in known:
            known.add(stage.place)
            watch(run, stage, step)

    return once


def names(of: Sequence[str]) -> Iterator[str]:
    """A short list of names for a message."""
    if of:
        yield ", ".join(of[:3]) + (f" and {len(of) - 3} more" if len(of) > 3 else "")
