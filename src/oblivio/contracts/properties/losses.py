"""What a loss, an edit or a mask must not depend on: order, size of a batch, padding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from oblivio.contracts.case import Bits, Case, below, bits, edits, first_steps, prop, stages
from oblivio.core.descent import Descent
from oblivio.core.grads import Grads, add, norm
from oblivio.core.part import walk
from oblivio.core.plan import Plan, keep
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import generator
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.where import Where

ROUNDING = 1e-5  # of a gradient's norm: sums in another order, twice in a row for a look-ahead


@prop
def order(case: Case) -> Iterator[str]:
    """The order of the rows in a batch does not change a gradient."""
    yield from _gradients(case, lambda stage, step: (_with(step, _shuffled), None))


@prop
def size(case: Case) -> Iterator[str]:
    """Nor do chunks of 7 rows instead of the whole batch, nor a batch that holds every row twice."""
    yield from _gradients(case, lambda stage, step: (step, None if stage.loss.whole else 7))
    yield from _gradients(case, lambda stage, step: (step if stage.loss.whole else _with(step, _doubled), None))


@prop
def padding(case: Case) -> Iterator[str]:
    """Nor does padding, where rows have a length."""
    pad = case.tiny.pad
    if pad is None:
        return

    def longer(problem: Problem, batch: Batch, extras: dict[str, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
        if "x" not in batch.source.columns:  # what a method made of them, such as activations, has no length
            return batch, extras
        columns = {name: pad(name, batch[name]) for name in batch.source.columns}
        return batch.but(**columns), {name: pad(name, value) for name, value in extras.items()}

    yield from _gradients(case, lambda stage, step: (_with(step, longer), None), cached=False)


def _gradients(
    case: Case, other: Callable[[Descent, Step], tuple[Step, int | None]], cached: bool = True
) -> Iterator[str]:
    """Compare every Descent's gradient at its first step with that of another form of the same batch of 50 rows."""
    found: list[str] = []

    def compare(run: Run, stage: Descent, step: Step) -> None:
        problem = run.problem
        table, problem.frozen = problem.frozen, problem.frozen if cached else {}
        with problem.evaluating():
            plain = Step(problem, stage.place, step.selection, 50, taps=step.taps, train=False)
            plain.t, plain.end, plain.opt = step.t, step.end, step.opt
            expected = stage.loss.grad(plain)
            changed, chunk = other(stage, plain)
            changed.chunk = chunk
            got = stage.loss.grad(changed)
        problem.frozen = table
        if not _close(got, expected):
            found.append(
                f"{stage.loss!r}: the gradient differs by {float(norm(add(got, expected, -1))):.2g} "
                f"of {float(norm(expected)):.2g}"
            )

    case.run(Plan([keep("start"), *stages(case.plan())]), watch=[first_steps(compare)])
    yield from found


def _close(a: Grads, b: Grads) -> bool:
    return float(norm(add(a, b, -1))) <= ROUNDING * max(float(norm(b)), 1.0)


def _with(step: Step, change: Callable[..., tuple[Batch, dict[str, Tensor]]]) -> Step:
    """The step with other batches: ``change(problem, batch, what was drawn for it)``."""
    other = copy.copy(step)
    other._outs, other._taps, other._batches, other._extras = {}, {}, {}, {}
    for name, batch in step._batches.items():
        mine = {key: value for (on, key), value in step._extras.items() if on == name}
        other._batches[name], extras = change(step.problem, batch, mine)
        other._extras |= {(name, key): value for key, value in extras.items()}
    return other


def _at(batch: Batch, extras: dict[str, Tensor], rows: Tensor) -> tuple[Batch, dict[str, Tensor]]:
    columns = {name: v[rows] if isinstance(v, Tensor) else v[rows.numpy()] for name, v in batch._columns.items()}
    moved = Batch(batch.source, batch.rows[rows], columns)  # with what was drawn into it, such as noise
    return moved, {key: value[rows] for key, value in extras.items()}


def _shuffled(problem: Problem, batch: Batch, extras: dict[str, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
    return _at(batch, extras, torch.arange(len(batch) - 1, -1, -1))


def _doubled(problem: Problem, batch: Batch, extras: dict[str, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
    return _at(batch, extras, torch.arange(len(batch)).repeat(2))


@prop
def rows(case: Case) -> Iterator[str]:
    """The order of the rows in a source does not change what an edit or a mask computes, but for ties and rounding."""
    given, turned = case.problem(), case.problem()
    for name, source in turned.sources.items():
        turned.sources[name] = turned._named(name, source.take(torch.randperm(len(source), generator=generator(name))))
    plan = Plan([*edits(case.plan())])
    if plan.stages:
        yield from _few(bits(case.run(plan, given)), bits(case.run(plan, turned)), "the edits' outcome")
    for i, descent in enumerate(below(case.plan(), Descent)):
        yield from _few(_masks(descent.where, given), _masks(descent.where, turned), f"mask {i}")


def _masks(where: Where, problem: Problem) -> Bits:
    where = copy.deepcopy(where)
    for _, part in walk(where):
        part.prepare(problem)
    return {n: m.float() for n, m in where.select(problem).items() if m is not None}


def _few(a: Bits, b: Bits, what: str) -> Iterator[str]:
    off = sum(int(((a[n] - b[n]).abs() > 1e-4 * a[n].abs() + 1e-6).sum()) for n in a)
    if off > 0.01 * sum(v.numel() for v in a.values()):
        yield f"{what} differs in {off} entries when the rows of the sources come in another order"


@prop
def divergence(case: Case) -> Iterator[str]:
    """In ``distance(out, target)`` the outputs that move come first and the target is held fixed."""
    problem, found = case.problem(), []
    task = copy.copy(problem.task)
    distance = task.distance

    def look(out: Tensor, target: Tensor, batch: Batch) -> Tensor:
        if target.requires_grad and not out.requires_grad:
            found.append("distance(out, target) is called with the frozen outputs first")
        return distance(out, target, batch)

    task.distance = look  # type: ignore[method-assign]
    problem.task = task
    case.run(problem=problem)
    yield from found[:1]
