"""Boundary unlearning: the forgotten class is given to its nearest neighbours, or to a shadow class that is cut off."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Nets, Problem
from oblivio.core.seeds import mix
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, Term, term
from oblivio.modules.heads import narrow_head, widen_head
from oblivio.registry import method
from oblivio.until import unseen


class neighbour(Term):
    """CE towards the class that one sign step of size ``bound`` on the inputs leads to in the model of the start.

    ``state["hits"]`` is the share of rows for which that is another class than their own; the others teach nothing.
    """

    def __init__(self, on: On, bound: float) -> None:
        self.on, self.bound = on, bound

    @property
    def reads(self) -> tuple[On, ...]:
        return (self.on,)

    def prepare(self, problem: Problem) -> None:
        self.state["target"] = problem.tabulate(self.on, lambda nets, batch: self._nearest(problem, nets, batch))
        own = torch.cat([batch["y"] for batch in problem.source(self.on).batches(4096)])
        self.state["hits"] = float((self.state["target"] != own).float().mean())

    def _nearest(self, problem: Problem, nets: Nets, batch: Batch) -> Tensor:
        with torch.enable_grad():
            x = batch["x"].detach().requires_grad_()
            loss = problem.task.each(problem.task.forward(nets, "model", batch.but(x=x)), batch).sum()
            (slope,) = torch.autograd.grad(loss, x)
        moved = (x.detach() + self.bound * slope.sign()).clamp(0, 1)
        with torch.no_grad():
            return problem.task.forward(nets, "model", batch.but(x=moved)).argmax(1)

    def __call__(self, step: Step) -> Tensor:
        batch = step.batch(self.on)
        values = step.task.each(step.out(self.on), batch.but(y=self.state["target"][batch.rows]))
        return values.sum() / step.count(self.on)

    def __repr__(self) -> str:
        return f"neighbour({self.on!r}, bound={self.bound:g})"


@term
def shadow(step: Step, on: On) -> Tensor:
    """CE towards the last output."""
    out, batch = step.out(on), step.batch(on)
    return step.task.each(out, batch.but(y=torch.full_like(batch["y"], out.shape[1] - 1)))


@edit
def widen(problem: Problem) -> None:
    """One more output."""
    seed = mix(problem.seed, problem.turn, "shadow")
    problem.operate(widen_head, layer=problem.features.partition(".")[2], by=1, seed=seed)


@edit
def narrow(problem: Problem) -> None:
    """The outputs as they were."""
    problem.operate(narrow_head, layer=problem.features.partition(".")[2])


@method(
    paper="Chen et al., Boundary Unlearning, CVPR 2023",
    needs=("forget",),
    tasks=("classification",),
    serves=("class",),
    refusal="it gives every forgotten row to another class, where one retrained without random rows gets most right",
    aliases=("boundary_shrink", "boundary_expanding", "boundary_expand"),
    cost="epochs over forget; shrink: two passes more for the neighbours",
)
def boundary_unlearning(
    variant: Literal["shrink", "expand"] = "shrink",
    bound: Annotated[float, Field(gt=0, le=1)] = 0.2,
    lr: Annotated[float, Field(gt=0)] = 5e-4,
    epochs: Annotated[float, Field(gt=0)] = 30,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Move the decision boundary over the forgotten class, with the forgotten rows alone.

    Equation: shrink: min CE(forget, class of x + bound sign grad CE); expand: one more output, min CE(forget, it), and
    that output is cut off. Stops as soon as the forgotten rows do no better than unseen ones would, if the problem has
    ``valid`` rows to tell.
    Needs: forgotten rows with labels; inputs in [0, 1] before any normalisation (shrink); a linear last layer (expand).
    Fails: no retained rows hold the rest in place, so the rate is the only guard; a bound that crosses no boundary
    teaches nothing.
    """

    def descent(loss: Term) -> Stage:
        return Descent(loss, opt=sgd(lr, 0.9), over="forget", epochs=epochs, batch=batch, until=unseen(), every=5)

    if variant == "shrink":
        return descent(neighbour("forget", bound))
    return widen() >> descent(shadow("forget")) >> narrow()
