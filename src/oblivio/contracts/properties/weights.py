"""Which weights change, and which do not."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import reduce

import torch

from oblivio.contracts.case import Bits, Case, below, bits, differing, names, prop, same_bits, stages
from oblivio.core.descent import Descent
from oblivio.core.plan import Edit, Plan, Stage, keep
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.where import Names, Selection, Where


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
    """Every other entry of all weights, those of nets beside the model too, but the model's first, which is frozen."""

    def select(self, problem: Problem) -> Selection:
        weights = list(problem.weights().items())[1:]
        return {n: torch.arange(w.numel()).remainder(2).bool().view_as(w) for n, w in weights}


def _by_stage(case: Case, plan: Stage) -> Iterator[tuple[Stage, Bits, Bits, Selection]]:
    """Stages with Descents, the weights before and after each, and what of them may move."""
    parts = stages(plan)
    apart = [part for i, stage in enumerate(parts) for part in (keep(f"contract {i}"), stage)]
    run = Run(Plan([*apart, keep(f"contract {len(parts)}")]), case.problem())
    problem = run.go()
    weights = {n for n, _ in problem.nets.named_parameters()}
    for i, stage in enumerate(stages(run.plan)[1::2]):
        before, after = ({n: v for n, v in problem.kept(f"contract {k}").items() if n in weights} for k in (i, i + 1))
        wheres = [descent.where for descent in below(stage, Descent)]
        if wheres:
            selected = reduce(operator.or_, wheres).select(problem)
            yield stage, before, after, {n: m for n, m in selected.items() if m is None or bool(m.any())}


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
