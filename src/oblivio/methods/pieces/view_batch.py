"""View-batch: a piece that shows several views of a row at once and then lets it rest as many times longer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import Function, On, term
from oblivio.registry import method
from oblivio.sources.augment import augment
from oblivio.sources.joined import Joined
from oblivio.sources.views import ViewBatches


@dataclass(frozen=True)
class Augmented:
    """All views are shifted by up to ``shift`` pixels; those behind the first get Gaussian noise besides."""

    shift: int
    noise: float

    def __call__(self, x: Tensor, first: Tensor, rng: torch.Generator) -> Tensor:
        moved, noisy = augment(x, 0.0, self.shift, rng), augment(x, self.noise, self.shift, rng)
        plain = first.view(-1, *[1] * (x.dim() - 1)).to(x.device)
        return torch.where(plain, moved, noisy) if self.noise else moved


@term(whole=True)
def agree(step: Step, on: On) -> Tensor:
    """Mean KL(p(first view) | p(view)) over the further views of each row, the first held fixed; sums over classes."""
    batch = step.batch(on)
    log_p = step.task.view(step.out(on), batch, "train").log_softmax(1)
    _, row = batch.rows.to(log_p.device).unique(return_inverse=True)
    place = torch.arange(len(row), device=row.device)
    first = place.new_full((int(row.max()) + 1,), len(row)).scatter_reduce(0, row, place, "amin")[row]
    further = place != first
    if not further.any():
        return log_p.sum() * 0
    target = log_p.detach()[first]
    return (target.exp() * (target - log_p)).sum(1)[further].mean()


@dataclass(frozen=True)
class After:
    """1 once so many epochs of an experience are done, before that 0."""

    epochs: int
    on: On

    def __call__(self, step: Step) -> float:
        rows = len(step.source(self.on))
        return float(step.t >= self.epochs * -(-rows // (step.size or rows)))


@method(
    kind="piece",
    paper="Kim et al., Do Your Best and Get Enough Rest for Continual Learning, CVPR 2025",
    needs=("new",),
    on="er",
    on_settings=(("epochs", 8),),
    tasks=("classification",),
    aliases=("vbm", "view_batch_model"),
    cost="none: as many steps of as many rows as before",
)
def view_batch(
    R: Annotated[int, Field(ge=1)] = 4,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
    warmup: Annotated[int, Field(ge=0)] = 5,
    shift: Annotated[int, Field(ge=0)] = 1,
    noise: Annotated[float, Field(ge=0)] = 0.1,
) -> Callable[[Stage], Stage]:
    """Show R views of a new row in one batch and then not for R epochs, and let the views agree with the first.

    Equation: batches of B / R rows with R views each, in an order that changes every R epochs; min the plan's loss +
    alpha mean KL(p(view 1) || p(view r)), the KL summed over classes, no gradient through view 1, from epoch ``warmup``
    on. All views are shifted by up to ``shift`` pixels (images), those behind the first get Gaussian noise of a
    deviation drawn from [0, ``noise``], in the place of the paper's automatic augmentation.
    Needs: a plan that learns new rows in R epochs or more, best a multiple of R, or rows are left out; batches of R
    rows or more. Stored rows that the plan joins with the new ones (icarl) come in views too; others are drawn as
    the plan draws them.
    Fails: without augmentation the views are copies. On digits the schedule alone gains 0.01 at most.
    Views are grouped by row; the published loop does so by consecutive labels, which joins neighbours of one class.
    """

    def put(plan: Stage) -> Stage:
        plan, look = copy.deepcopy(plan), Augmented(shift, noise) if shift or noise else None
        found = [(part, on) for _, part in walk(plan) if isinstance(part, Descent) for on in _new(part)]
        if not found:
            raise BadInput(f"view_batch shows views of new rows, and {plan!r} reads none")
        made = {id(on): ViewBatches(on, R, look) for _, on in found}
        for descent, on in found:
            _long_enough(descent, R)
            _replace(descent, on, views := made[id(on)])
            if alpha and R > 1:
                descent.loss = descent.loss + After(warmup, views) * (alpha * agree(views))
        return plan

    return put


def _new(descent: Descent) -> list[On]:
    """The sources of new rows that it reads: themselves, or joined with others."""
    return [on for on in descent.loss.reads if on == "new" or (isinstance(on, Joined) and "new" in on.of)]


def _long_enough(descent: Descent, R: int) -> None:
    if isinstance(descent.epochs, (int, float)) and descent.epochs < R:
        raise BadInput(f"view_batch with R={R} shows every row once in {R} epochs, and {descent!r} has "
                       f"{descent.epochs:g}; give it {R} or more, or a smaller R")  # fmt: skip


def _replace(descent: Descent, on: On, views: ViewBatches) -> None:
    """Read ``views`` wherever the Descent reads ``on``."""
    parts = [part for _, part in walk(descent.loss)]
    for fields in [vars(descent), *map(vars, parts), *(p.settings for p in parts if isinstance(p, Function))]:
        fields.update({k: views for k, v in fields.items() if v is on or (isinstance(v, str) and v == on)})
