"""What a run leaves alone: the given model, the rows, global states, settings, batch-norm statistics."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio.contracts.case import Bits, Case, Planted, below, bits, differing, failing, names, prop, same_bits
from oblivio.core.descent import RETAINED, Descent
from oblivio.core.importance import fisher
from oblivio.core.part import Part, walk
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.terms import fit


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
    rows = {
        f"{name} of {source.name}": batch[name].clone()
        for source in problem.sources.values()
        for batch in source.batches(len(source))
        for name in (*source.columns, "id")
    }
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
    return {
        "torch's random state": torch.get_rng_state().tolist(),
        "NumPy's random state": str(np.random.get_state()),  # noqa: NPY002 - the state that a method must leave
        "Python's random state": random.getstate(),
        "the gradient mode": torch.is_grad_enabled(),
        "the number of threads": torch.get_num_threads(),
        "the default type": torch.get_default_dtype(),
    }


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
    return {k: v for k, v in vars(part).items() if k[0] != "_" and k != "own"}


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and same_bits(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_alike, a, b))
    return isinstance(a, Part) or bool(np.all(a == b)) or repr(a) == repr(b)


@prop
def statistics(case: Case) -> Iterator[str]:
    """Only passes over retained rows move batch-norm statistics, or over what a Descent names in ``moves``."""
    problem = case.problem()
    norms: list[Any] = [m for m in problem.nets.modules() if getattr(m, "track_running_stats", False)]
    if not norms:
        return
    allowed = {*RETAINED, *(name for stage in below(case.plan(), Descent) for name in stage.moves)}
    if any(getattr(part, "views", False) for _, part in walk(case.plan())):
        return  # rows that are shown in another way than they are read no longer have their bits
    keys = {n: {_key(x) for b in s.batches(len(s)) for x in b["x"]} for n, s in problem.sources.items()}
    known: set[bytes] = set().union(*(keys[name] for name in keys if name in allowed))
    known -= set() if "forget" in allowed else keys["forget"]  # training rows hold those to forget
    found: list[str] = []
    means = [m.running_mean for m in norms]  # these tensors: a pass at a snapshot puts others in their place
    now = [mean.clone() for mean in means]

    def look(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        moved = [not torch.equal(mean, was) for mean, was in zip(means, now, strict=True)]
        now[:] = [mean.clone() for mean in means]
        strange = sum(_key(x) not in known for x in inputs[0]) if any(moved) else 0
        if strange:
            found.append(f"a pass with {strange} rows that are not retained moved batch-norm statistics")

    problem.model.register_forward_hook(look)
    case.run(problem=problem)
    yield from found[:1]


def _key(x: Tensor) -> bytes:
    return bytes(x.detach().contiguous().numpy().tobytes())
