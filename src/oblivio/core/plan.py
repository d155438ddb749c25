"""Stages in order and in turn. A stage changes the problem: ``open`` once, ``visit`` once or often, ``close`` once."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import torch

from oblivio.core.errors import BadInput
from oblivio.core.part import Part, children, overrides
from oblivio.core.where import Where, as_where

if TYPE_CHECKING:
    from oblivio.core.opt import Opt
    from oblivio.core.problem import Problem
    from oblivio.core.run import Run
    from oblivio.core.term import Term

Times = int | Callable[["Problem"], int]


class Stage(Part):
    """Descent, Edit, Cycle and Plan are the four stages."""

    place = ""  # its path in the plan, given by the run
    own: tuple[Part, ...] = ()  # the Parts below it that no other stage owns, given by the run

    def open(self, problem: Problem, run: Run) -> None:
        """Before the first visit; Parts are prepared unless the run is resumed."""
        if not self.state.get("open"):
            self._begin(problem)
            if self._writes("prepare"):
                problem.move()
            for part in self.own:
                part.prepare(problem)
            self.state["open"] = True
        self._assemble(problem)

    def _begin(self, problem: Problem) -> None:
        """Set clocks to zero."""

    def _assemble(self, problem: Problem) -> None:
        """Build what is not state."""

    def visit(self, problem: Problem, run: Run) -> None:
        """Do the work of one visit, or go on inside it."""
        raise NotImplementedError

    def close(self, problem: Problem) -> None:
        """After the last visit."""
        if self._writes("consolidate"):
            problem.move()
        for part in self.own:
            part.consolidate(problem)
        self.state["open"] = False

    def _writes(self, hook: str) -> bool:
        """Whether a Part may change weights in ``hook``."""
        return any(overrides(part, hook) and part.writes for part in self.own)

    def __rshift__(self, other: Stage) -> Plan:
        return Plan([*_stages(self), *_stages(other)])

    def but(
        self,
        *,
        loss: Callable[[Term], Term] | Term | None = None,
        where: Where | str | None = None,
        how: Any = None,
        opt: Opt | None = None,
    ) -> Stage:
        """A copy whose Descents have another loss, where, how or optimiser.

        ``loss`` is a Term or a function of the present one, ``where`` must lie in both, ``how`` comes after the present
        ones, a copy of it in each Descent, and ``opt`` is shared by all of them. Raises BadInput where no Descent is
        found: an edit has no loss to change.
        """
        other = copy.deepcopy(self)
        descents = [s for s in _below(other) if getattr(s, "loss", None) is not None]
        if not descents:
            raise BadInput("a piece changes a Descent, and this method is a direct edit of the weights without one")
        for stage in descents:
            stage.change(loss, where, how, opt)  # type: ignore[attr-defined]
        return other


def _stages(stage: Stage) -> list[Stage]:
    return stage.stages if isinstance(stage, Plan) else [stage]


def _below(stage: Stage) -> list[Stage]:
    inner = [s for _, c in children(stage) if isinstance(c, Stage) for s in _below(c)]
    return [stage, *inner]


class Plan(Stage):
    """Stages in order: ``a >> b``."""

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages

    def _begin(self, problem: Problem) -> None:
        self.state["at"] = 0

    def visit(self, problem: Problem, run: Run) -> None:
        while self.state["at"] < len(self.stages):
            stage = self.stages[self.state["at"]]
            stage.open(problem, run)
            stage.visit(problem, run)
            stage.close(problem)
            self.state["at"] += 1
            run.boundary()

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.stages))


class Cycle(Stage):
    """Stages in turn, each with its own clock and optimiser: two players, phases, outer loops.

    ``rounds``: how often, or a function of the problem; ``until(problem)`` ends it after a round.
    """

    def __init__(self, *stages: Stage, rounds: Times, until: Callable[[Problem], bool] | None = None) -> None:
        self.stages, self.rounds, self.until = [s for stage in stages for s in _stages(stage)], rounds, until

    def _begin(self, problem: Problem) -> None:
        rounds = self.rounds(problem) if callable(self.rounds) else self.rounds
        self.state.update(round=0, at=0, rounds=rounds)
        for stage in self.stages:
            stage.state["open"] = False

    def _assemble(self, problem: Problem) -> None:
        self._ready = [False] * len(self.stages)

    def visit(self, problem: Problem, run: Run) -> None:
        s = self.state
        while s["round"] < s["rounds"]:
            while s["at"] < len(self.stages):
                self._one(s["at"], problem, run)
                s["at"] += 1
            s.update(round=s["round"] + 1, at=0)
            if self.until is not None and self.until(problem):
                break
        for stage, ready in zip(self.stages, self._ready, strict=True):
            if ready:
                stage.close(problem)

    def _one(self, i: int, problem: Problem, run: Run) -> None:
        if not self._ready[i]:
            self.stages[i].open(problem, run)
            self._ready[i] = True
        self.stages[i].visit(problem, run)

    def __repr__(self) -> str:
        rounds = getattr(self.rounds, "__name__", self.rounds)
        return f"Cycle({', '.join(map(repr, self.stages))}, rounds={rounds})"


class Edit(Stage):
    """A direct change of weights, structure or sources without descent, made by ``@edit``."""

    def __init__(
        self, fn: Callable[..., None], settings: dict[str, Any], makes: bool = False, writes: bool = True
    ) -> None:
        self.fn, self.settings, self.makes, self.writes = fn, settings, makes, writes

    def visit(self, problem: Problem, run: Run) -> None:
        if self.writes:
            problem.move()
        with torch.no_grad():
            self.fn(problem, **self.settings)
        problem.moved = True

    def __repr__(self) -> str:
        return f"{self.fn.__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"


@overload
def edit(fn: Callable[..., None]) -> Callable[..., Edit]: ...
@overload
def edit(*, makes: bool = ..., writes: bool = ...) -> Callable[[Callable[..., None]], Callable[..., Edit]]: ...
def edit(fn: Callable[..., None] | None = None, *, makes: bool = False, writes: bool = True) -> Any:
    """Make an Edit of ``f(problem, ...)``.

    ``makes`` says that it makes sources, which later stages may read; without ``writes`` it changes no weight itself.
    """
    if fn is None:
        return functools.partial(edit, makes=makes, writes=writes)
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def make(*args: Any, **kwargs: Any) -> Edit:
        bound = signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        return Edit(fn, dict(list(bound.arguments.items())[1:]), makes, writes)

    return make


@edit(writes=False)
def keep(problem: Problem, name: str) -> None:
    """Take a snapshot."""
    problem.keep(name)


@edit
def restore(problem: Problem, name: str) -> None:
    """Put a snapshot back."""
    problem.restore(name)


@edit(writes=False)
def operate(problem: Problem, op: Callable[..., None], **arguments: Any) -> None:
    """Change the structure by a surgery."""
    problem.operate(op, **arguments.get("arguments", arguments))


def both(a: Where | str, b: Where | str) -> Where:
    """What lies in both."""
    return as_where(a) & b
