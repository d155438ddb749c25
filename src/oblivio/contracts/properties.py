"""The properties of every method. Each is a function of a Case that yields a message for everything that is wrong."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio import artefact
from oblivio.contracts.case import (
    Bits, Case, Planted, below, bits, differing, edits, failing, first_steps, names, same_bits, stages,
)  # fmt: skip
from oblivio.core.descent import RETAINED, Descent
from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads, add, norm
from oblivio.core.importance import fisher
from oblivio.core.part import Part, walk
from oblivio.core.plan import Edit, Plan, Stage, keep
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import generator
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.where import Names, Selection, Where
from oblivio.terms import fit

Property = Callable[[Case], Iterator[str]]
PROPERTIES: dict[str, Property] = {}
ROUNDING = 1e-5  # of a gradient's norm: sums in another order, twice in a row for a look-ahead


def prop(fn: Property) -> Property:
    """Enter a property in the list."""
    PROPERTIES[fn.__name__] = fn
    return fn


# --- what a run leaves alone


@prop
def untouched(case: Case) -> Iterator[str]:
    """A run on a copy leaves the given model, its flags and the sources as they were, also when it breaks off."""
    given = case.problem()
    before = _given(given)
    case.run(problem=given.copy())
    yield from (f"a run changed {what}" for what in names(differing(before, _given(given))))
    broken = given.copy()
    failing(broken, case.forwards // 2)
    try:
        case.run(problem=broken)
    except Planted:
        yield from (f"a broken run changed {what}" for what in names(differing(before, _given(given))))


def _given(problem: Problem) -> Bits:
    flags = {f"mode of {n}": torch.tensor(m.training) for n, m in problem.nets.named_modules()}
    flags |= {f"requires_grad of {n}": torch.tensor(p.requires_grad) for n, p in problem.nets.named_parameters()}
    rows = {f"{name} of {source.name}": batch[name].clone() for source in problem.sources.values()
            for batch in source.batches(len(source)) for name in (*source.columns, "id")}
    return {**bits(problem), **flags, **rows}


@prop
def surroundings(case: Case) -> Iterator[str]:
    """Random states, gradient mode, threads, module modes and ``requires_grad`` are afterwards as they were."""
    problem = case.problem()
    before = _surroundings()
    flags = {n: v for n, v in _given(problem).items() if " of " in n}
    case.run(problem=problem)
    yield from (f"{name} changed" for name, value in _surroundings().items() if value != before[name])
    after = {n: v for n, v in _given(problem).items() if n in flags}
    yield from (f"{what} changed" for what in names([n for n in after if not same_bits(after[n], flags[n])]))


def _surroundings() -> dict[str, Any]:
    return {"torch's random state": torch.get_rng_state().tolist(), "NumPy's random state": str(np.random.get_state()),
            "Python's random state": random.getstate(), "the gradient mode": torch.is_grad_enabled(),
            "the number of threads": torch.get_num_threads(), "the default type": torch.get_default_dtype()}


@prop
def watched(case: Case) -> Iterator[str]:
    """A watcher that evaluates in mid-run (predictions, scores, gradients, importance) does not change the outcome."""

    def evaluate(run: Run, stage: Stage, step: Step) -> None:
        if run.steps % 3 == 1:
            torch.rand(3)
            run.problem.predict("test")
            run.problem.score("test")
            run.problem.gradient(fit("test"))
            fisher(run.problem, "test")

    if below(case.plan(), Descent):
        after = bits(case.run(watch=[evaluate]))
        yield from (f"watching changed {what}" for what in names(differing(case.bits, after)))


@prop
def settings(case: Case) -> Iterator[str]:
    """What a run changes in a Part is in its ``state``; the rest are settings and stay."""
    run = Run(case.plan(), case.problem())
    before = {path: copy.deepcopy(_settings(part)) for path, part in run.parts.items()}
    run.go()
    for path, part in run.parts.items():
        after = _settings(part)
        changed = [k for k in before[path].keys() | after if not _alike(before[path].get(k), after.get(k))]
        yield from (f"{what} of {path} changed" for what in names(sorted(changed)))


def _settings(part: Part) -> dict[str, Any]:
    return {k: v for k, v in vars(part).items() if k[0] != "_" and not isinstance(v, (Part, tuple, list))}


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and same_bits(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    return isinstance(a, Part) or bool(np.all(a == b)) or repr(a) == repr(b)


# --- which weights change


@prop
def acts(case: Case) -> Iterator[str]:
    """The outcome differs from the given model, and is finite."""
    if not differing(bits(case.problem()), case.bits):
        yield "nothing changed"
    broken = [n for n, v in case.bits.items() if not bool(torch.isfinite(v).all())]
    yield from (f"NaN or infinite values in {what}" for what in names(broken))


@prop
def moves(case: Case) -> Iterator[str]:
    """Every weight that a Descent may move does move."""
    for stage, before, after, selected in _by_stage(case, case.plan()):
        still = [n for n in selected if n in before and n in after and same_bits(before[n], after[n])]
        yield from (f"{what} stayed in {stage!r}" for what in names(still))


@prop
def stays(case: Case) -> Iterator[str]:
    """A weight outside the mask keeps its bits, under momentum and weight decay; so does a frozen layer."""
    plan = case.plan()
    if not below(plan, Descent):
        return
    masked = plan.but(where=Half())
    for stage in below(masked, Descent):
        momentum = {"momentum": 0.9} if stage.opt.kind is torch.optim.SGD else {}
        stage.opt.options = {**stage.opt.options, "weight_decay": 0.1, **momentum}
    for stage, before, after, selected in _by_stage(case, masked):
        for name in before.keys() & after.keys() if not below(stage, Edit) else ():
            mask = selected.get(name, torch.zeros(()))
            out = torch.zeros((), dtype=torch.bool) if mask is None else (mask == 0).expand_as(before[name])
            if before[name].shape == after[name].shape and bool((out & (before[name] != after[name])).any()):
                yield f"{name} moved where it is masked out of {stage!r}"


class Half(Where):
    """Every other entry of all weights of the model but the first, which is frozen."""

    def select(self, problem: Problem) -> Selection:
        weights = list(problem.weights("model.*").items())[1:]
        return {n: torch.arange(w.numel()).remainder(2).bool().view_as(w) for n, w in weights}


def _by_stage(case: Case, plan: Stage) -> Iterator[tuple[Stage, Bits, Bits, Selection]]:
    """Stages with Descents, the weights before and after each, and what of them may move."""
    parts = stages(plan)
    apart = [part for i, stage in enumerate(parts) for part in (keep(f"contract {i}"), stage)]
    run = Run(Plan([*apart, keep(f"contract {len(parts)}")]), case.problem())
    problem = run.go()
    weights = {n for n, _ in problem.nets.named_parameters()}
    for i, stage in enumerate(stages(run.plan)[1::2]):
        before, after = ({n: v for n, v in problem.snapshots[f"contract {k}"].items() if n in weights} for k in (i, i + 1))
        selected: Selection = {}
        for descent in below(stage, Descent):
            selected |= {n: m for n, m in descent.where.select(problem).items() if m is None or bool(m.any())}
        if selected:
            yield stage, before, after, selected


@prop
def mask(case: Case) -> Iterator[str]:
    """A mask has an effect: the plan's own against none, and one put on the plan against the plan."""
    plan = case.plan()
    descents = below(plan, Descent)
    if not descents:
        return
    if not differing(case.bits, bits(case.run(plan.but(where=Half())))):
        yield "masking every other weight changed nothing"
    own = [repr(d.where) for d in descents if not isinstance(d.where, Names)]
    for descent in descents:
        descent.where = Names("model.*") if not isinstance(descent.where, Names) else descent.where
    if own and not differing(case.bits, bits(case.run(plan))):
        yield f"without {' and '.join(own)} the outcome is the same"


@prop
def statistics(case: Case) -> Iterator[str]:
    """Only passes over retained rows move batch-norm statistics, or over what a Descent names in ``moves``."""
    problem = case.problem()
    norms: list[Any] = [m for m in problem.nets.modules() if getattr(m, "track_running_stats", False)]
    if not norms:
        return
    allowed = {*RETAINED, *(name for stage in below(case.plan(), Descent) for name in stage.moves)}
    known = {_key(x) for name, source in problem.sources.items() if name in allowed
             for batch in source.batches(len(source)) for x in batch["x"]}
    found: list[str] = []
    now = [m.running_mean.clone() for m in norms]

    def look(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        moved = [not torch.equal(m.running_mean, was) for m, was in zip(norms, now, strict=True)]
        now[:] = [m.running_mean.clone() for m in norms]
        strange = sum(_key(x) not in known for x in inputs[0]) if any(moved) else 0
        if strange:
            found.append(f"a pass with {strange} rows that are not retained moved batch-norm statistics")

    problem.model.register_forward_hook(look)
    case.run(problem=problem)
    yield from found[:1]


def _key(x: Tensor) -> bytes:
    return bytes(x.detach().contiguous().numpy().tobytes())


# --- what a loss depends on


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
        columns = {name: pad(name, batch[name]) for name in batch.source.columns}
        return batch.but(**columns), {name: pad(name, value) for name, value in extras.items()}

    yield from _gradients(case, lambda stage, step: (_with(step, longer), None), cached=False)


def _gradients(case: Case, other: Callable[[Descent, Step], tuple[Step, int | None]], cached: bool = True) -> Iterator[str]:
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
            found.append(f"{stage.loss!r}: the gradient differs by {float(norm(add(got, expected, -1))):.2g} "
                         f"of {float(norm(expected)):.2g}")

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
    return batch.source.batch(batch.rows[rows]), {key: value[rows] for key, value in extras.items()}


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
    plan = Plan(edits(case.plan()))
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


# --- what makes a run exact


@prop
def seeds(case: Case) -> Iterator[str]:
    """The same seed gives the same bits whatever others draw; another seed gives others, where batches are drawn."""
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002 - the states that a method must not read
    yield from (f"the same seed gave another {what}" for what in names(differing(case.bits, bits(case.run()))))
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
    if below(case.plan(), Descent) and not differing(case.bits, bits(case.run(problem=case.problem(seed=1)))):
        yield "another seed gave the same bits"


@prop
def value(case: Case) -> Iterator[str]:
    """A plan is a value: it is printed and run a second time as the first."""
    plan = case.plan()
    printed = repr(plan)
    first, second = bits(case.run(plan)), bits(case.run(plan))
    yield from (f"the second run of the same plan gave another {what}" for what in names(differing(first, second)))
    if repr(plan) != printed:
        yield f"{printed} is printed as {plan!r} after a run"


@prop
def printed(case: Case) -> Iterator[str]:
    """A plan prints the settings it was made with, since by that a run knows its folder again."""
    for name, pairs in case.changed.items():
        if all(repr(a) == repr(b) for a, b in pairs):
            yield f"{name} is not printed in {pairs[0][0]!r}"


@prop
def resumes(case: Case) -> Iterator[str]:
    """A run killed in the middle, at its last step, or in the last pass of an edit, equals one that was not killed."""
    steps = case.finished.steps
    for at in sorted({steps // 2 | 1, steps}) if steps else []:
        yield from _resumed(case, f"step {at} of {steps}", watch=at)
    if edits(case.plan()):
        yield from _resumed(case, "its last pass", forward=case.forwards - 1)


def _resumed(case: Case, when: str, watch: int | None = None, forward: int | None = None) -> Iterator[str]:
    def kill(run: Run, stage: Stage, step: Step) -> None:
        if run.steps == watch:
            run.checkpoint()
            raise Planted

    with tempfile.TemporaryDirectory() as folder:
        problem = case.problem()
        if forward is not None:
            failing(problem, forward)
        try:
            Run(case.plan(), problem, Path(folder), every=1e9, watch=[kill]).go()
        except Planted:
            after = bits(Run(case.plan(), case.problem(), Path(folder)).resume().go())
            yield from (f"resumed after {when}: another {what}" for what in names(differing(case.bits, after)))


@prop
def saved(case: Case) -> Iterator[str]:
    """Saved and loaded, the model has the same outputs."""
    with tempfile.TemporaryDirectory() as name:
        folder, loaded = Path(name) / "model", case.problem()
        artefact.save(folder, case.outcome.model, task=case.tiny.kind, journal=case.outcome.journal)
        loaded.nets["model"] = artefact.read(folder, base=loaded.model).module
        if not same_bits(loaded.predict("test"), case.outcome.predict("test")):
            yield "the loaded model has other outputs"


# --- what a method says of itself


@prop
def needs(case: Case) -> Iterator[str]:
    """It works without what it does not declare; without what it does, it refuses before a weight moves."""
    declared = {name for need in case.needs for name in need.split("|")}
    bare = case.problem()
    for name in bare.sources.keys() - declared:
        del bare.sources[name]
    try:
        case.run(problem=bare)
    except Exception as error:
        yield f"with {', '.join(bare.sources) or 'nothing'} alone: {error}"
    for need in case.needs:
        yield from _refused(case, need)


def _refused(case: Case, need: str) -> Iterator[str]:
    lacking = case.problem()
    for name in need.split("|"):
        lacking.sources.pop(name, None)
        lacking.records.pop(name, None)
    before = bits(lacking)
    try:
        case.run(problem=lacking)
        yield f"{need} is declared, and it works without"
    except BadInput:
        yield from (f"without {need} it moved {what} before it refused" for what in names(differing(before, bits(lacking))))


@prop
def errors(case: Case) -> Iterator[str]:
    """An error in a forward pass comes out; it is not swallowed."""
    for at in sorted({0, case.forwards // 2, case.forwards - 1}) if case.forwards else []:
        problem = case.problem()
        failing(problem, at)
        try:
            case.run(problem=problem)
        except Planted:
            continue
        yield f"an error in forward {at} of {case.forwards} was swallowed"
        return
