"""What a plan will cost, before it is run: the rows that it forwards if nothing ends it early."""

from __future__ import annotations

from oblivio.core.descent import Descent
from oblivio.core.part import children
from oblivio.core.plan import Cycle, Edit, Stage
from oblivio.core.problem import Problem
from oblivio.core.term import On, source_name
from oblivio.registry import Spec


def expected(spec: Spec, plan: Stage, problem: Problem) -> float:
    """Rows that a method is expected to forward: what it says of itself, or what its plan tells."""
    rows = sum(len(problem.sources[name]) for name in ("forget", "retain") if name in problem.sources)
    return max(spec.passes * rows, forwards(plan, problem))


def forwards(plan: Stage, problem: Problem) -> int:
    """Rows forwarded at most: of a Descent its steps times the batches it reads, of a Cycle its rounds times that.

    An edit counts as one pass over forgotten and retained rows, a source that the plan itself makes as large as the
    forgotten rows.
    """
    if isinstance(plan, Descent):
        return sum(_rows(plan, problem, on) for on in plan.loss.reads)
    if isinstance(plan, Edit):
        return sum(len(problem.sources[name]) for name in ("forget", "retain") if name in problem.sources)
    each = sum(forwards(stage, problem) for _, stage in children(plan) if isinstance(stage, Stage))
    if not isinstance(plan, Cycle):
        return each
    return each * (plan.rounds(problem) if callable(plan.rounds) else plan.rounds)


def _rows(descent: Descent, problem: Problem, on: On) -> int:
    """Rows that a Descent reads of a source: whole epochs of the one that they pass over, a batch a step of others."""
    over = descent.over  # a source may be empty, and so count as false
    if over is None and len(descent.loss.reads) == 1:
        over = descent.loss.reads[0]
    if descent.epochs is not None and over is not None and source_name(over) == source_name(on):
        return round(_epochs(descent) * _size(problem, on))
    return _steps(descent, problem, over) * min(descent.batch or _size(problem, on), _size(problem, on))


def _steps(descent: Descent, problem: Problem, over: On | None) -> int:
    if descent.steps is not None:
        return descent.steps(0) if callable(descent.steps) else descent.steps
    size = _size(problem, "forget" if over is None else over)
    return round(_epochs(descent) * -(-size // (descent.batch or size)))


def _epochs(descent: Descent) -> float:
    assert descent.epochs is not None
    return descent.epochs(0) if callable(descent.epochs) else descent.epochs


def _size(problem: Problem, on: On) -> int:
    """Rows of a source; of one that is not there yet as many as are forgotten."""
    known = not isinstance(on, str) or on in problem.sources
    return max(len(problem.source(on if known else "forget")), 1)
