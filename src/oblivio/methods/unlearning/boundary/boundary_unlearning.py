"""Boundary unlearning: the forgotten class is given to its nearest neighbours, or to a shadow class that is cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

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
from oblivio.terms import toward
from oblivio.until import unseen

Losses: TypeAlias = "Callable[[Tensor], Tensor]"  # inputs to the loss of every row


class neighbour(toward):
    """CE towards the class that one sign step of size ``bound`` on the inputs leads to in the model of the start.

    ``state["hits"]`` is the share of rows for which that is another class than their own; the others teach nothing.
    With ``margins`` a row weighs 3 sigmoid(5 (p_2nd - p_1st - 1/2)), of the two largest probabilities after its step:
    rows that just cross a boundary count most.
    """

    def __init__(self, on: On, bound: float, margins: bool = False) -> None:
        super().__init__(on)
        self.bound, self.margins = bound, margins

    def find(self, problem: Problem) -> dict[str, Tensor]:
        """The targets, and what state tells of them."""
        out = problem.tabulate(self.on, lambda nets, batch: self._stepped(problem, nets, batch))
        own = torch.cat([batch["y"] for batch in problem.source(self.on).batches(4096)])
        self.state["hits"] = float((out.argmax(1) != own).float().mean())
        return {"target": out.argmax(1)} | ({"weight": weighed(out)} if self.margins else {})

    def _stepped(self, problem: Problem, nets: Nets, batch: Batch) -> Tensor:
        def losses(x: Tensor) -> Tensor:
            return problem.task.each(problem.task.forward(nets, "model", batch.but(x=x)), batch)

        moved = (batch["x"] + self.bound * slope(losses, batch["x"]).sign()).clamp(0, 1)
        with torch.no_grad():
            return problem.task.forward(nets, "model", batch.but(x=moved))

    def __repr__(self) -> str:
        return f"neighbour({self.on!r}, bound={self.bound:g}, margins={self.margins})"


def weighed(out: Tensor) -> Tensor:
    """Weights of rows, shape (n,), from the outputs after the step, shape (n, classes)."""
    first, second = out.softmax(1).topk(2).values.unbind(1)
    return 3 * torch.sigmoid(5 * (second - first - 0.5))


def slope(losses: Losses, x: Tensor) -> Tensor:
    """The gradient of every row's loss in its inputs."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(losses(x).sum(), x)[0]


def bend(losses: Losses, x: Tensor, h: float = 0.9) -> Tensor:
    """|grad_x [CE(x + z) - CE(x)]| of every row, z of length ``h`` along the signs of grad_x CE; shape (n,)."""
    sign = slope(losses, x).sign()
    z = h * sign / sign.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (x.dim() - 1))
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (turn,) = torch.autograd.grad((losses(x + z) - losses(x)).sum(), x, create_graph=True)
    return turn.flatten(1).square().sum(1).add(1e-12).sqrt()


class curvature(Term):
    """How far the loss surface round each row is from being as curved as at the start: mean |bend - bend at start|."""

    def __init__(self, on: On) -> None:
        self.on = on

    def prepare(self, problem: Problem) -> None:
        def bent(nets: Nets, batch: Batch) -> Tensor:
            task = problem.task
            return bend(lambda x: task.each(task.forward(nets, "model", batch.but(x=x)), batch), batch["x"]).detach()

        self.state["start"] = problem.tabulate(self.on, bent)

    def __call__(self, step: Step) -> Tensor:
        batch = step.batch(self.on)

        def losses(x: Tensor) -> Tensor:
            return step.task.each(step.out(self.on, via=lambda rows: rows.but(x=x)), batch)

        apart = bend(losses, batch["x"]) - self.state["start"][batch.rows]
        return apart.abs().sum() / step.count(self.on)

    def __repr__(self) -> str:
        return f"curvature({self.on!r})"


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
    margins: bool = False,
    curve: Annotated[float, Field(ge=0)] = 0.0,
    lr: Annotated[float, Field(gt=0)] = 5e-4,
    epochs: Annotated[float, Field(gt=0)] = 30,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Move the decision boundary over the forgotten class, with the forgotten rows alone.

    Equation: shrink: min CE(forget, class of x + bound sign grad CE); expand: one more output, min CE(forget, it), and
    that output is cut off. Shrinking may weigh rows by ``margins`` after the step, and add ``curve`` times the change
    in curvature of the loss at the rows (0.7 in the paper's code); both are off by default. Stops as soon as the
    forgotten rows do no better than unseen ones would, if the problem has ``valid`` rows to tell.
    Needs: forgotten rows with labels; inputs in [0, 1] before any normalisation (shrink); a linear last layer (expand).
    Fails: no retained rows hold the rest in place, so the rate is the only guard; a bound that crosses no boundary
    teaches nothing.
    """

    def descent(loss: Term) -> Stage:
        return Descent(loss, opt=sgd(lr, 0.9), over="forget", epochs=epochs, batch=batch, until=unseen(), every=5)

    if variant == "shrink":
        loss: Term = neighbour("forget", bound, margins)
        return descent(loss + curve * curvature("forget") if curve else loss)
    return widen() >> descent(shadow("forget")) >> narrow()
