"""PLwF: every earlier model is a teacher on the new rows, and gradients that conflict are projected off each other."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.grads import Grads
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.problem import Nets, Problem
from oblivio.core.source import Batch, Source
from oblivio.core.step import Step
from oblivio.core.term import On, Rule, Sum, Term, rule, term
from oblivio.registry import method
from oblivio.terms.distill import outputs
from oblivio.terms.vectors import SMALLEST, shaped, stacked

Teachers = Literal["all", "last"]
Projection = Literal["pairwise", "sum", "none"]


@term
def taught(step: Step, on: On, teacher: str, columns: Tensor | None, temperature: float) -> Tensor:
    """Cross-entropy to the tempered answers of a snapshot, over the outputs that it had learned (None: all)."""
    q, s = step.frozen(on, outputs, at=teacher) / temperature, step.out(on) / temperature
    if columns is not None:
        q, s = q[:, columns], s[:, columns]
    return -(q.softmax(1) * s.log_softmax(1)).sum(1)


def credited(K: Tensor, generator: torch.Generator) -> Tensor:
    """Each of several gradients without its parts against the others, taken off one by one in a random order.

    They are projected off the others as these were, so that only what comes last is surely not opposed.

    Args:
        K: products of the gradients with each other, shape (k, k).
        generator: of the orders.

    Returns:
        the results as combinations of the gradients, one a row, shape (k, k).
    """
    C = torch.eye(len(K), dtype=K.dtype)
    for i, c in enumerate(C):
        for j in torch.randperm(len(K), generator=generator, device=generator.device).tolist():
            if j != i:
                c[j] -= (c @ K[j]).clamp(max=0) / K[j, j].clamp(min=SMALLEST)
    return C


@rule
class progressive(Rule):
    """Learn the classes of this experience under the teachers that it takes itself when an experience ends.

    Their answers on the rows of ``on`` are looked up, where a row is always read the same. Passes a step: one for the
    new loss, and one for each teacher, for all of them together (``sum``), or none more (``none``).
    """

    on: On
    lambda_o: float
    temperature: float
    teachers: Teachers
    projection: Projection

    def prepare(self, problem: Problem) -> None:
        if not problem.source(self.on).random:
            for teacher in self.state:
                problem.frozen[problem.frozen_key(self.on, outputs, teacher)] = self._answers(problem, teacher)

    def _answers(self, problem: Problem, teacher: str) -> Tensor:
        def answer(_: Nets, batch: Batch) -> Tensor:
            return problem.at(teacher, lambda nets: problem.task.forward(nets, "model", batch))

        return problem.tabulate(self.on, answer)

    def consolidate(self, problem: Problem) -> None:
        if self.teachers == "last":
            for teacher in self.state:
                del problem.snapshots[teacher]
            self.state.clear()
        known, name = getattr(problem.task, "outputs", None), f"turn {problem.turn}"
        self.state[name] = None if known is None else known.columns("seen")
        problem.keep(name)

    def forget(self, rows: Source, problem: Problem) -> str:
        return ""  # it holds which classes were known; the teachers are snapshots, which the learner reports

    def objectives(self, step: Step) -> list[Term]:
        """The terms whose gradients are projected off each other: the new loss, then what the teachers ask."""
        new = terms.fit(self.on, view="current")
        old = [(self.lambda_o, taught(self.on, name, c, self.temperature)) for name, c in self.state.items()]
        if not old or self.projection == "none":
            return [Sum([(1.0, new), *old])]
        return [new, *(Sum([each]) for each in old)] if self.projection == "pairwise" else [new, Sum(old)]

    def grad(self, step: Step, graph: bool = False) -> Grads:
        grads = [each.grad(step) for each in self.objectives(step)]
        if len(grads) == 1:
            return grads[0]
        G = stacked(grads, step.weights)
        C = credited((G @ G.T).cpu(), step.rng("credit"))
        return shaped(C.sum(0).to(G.device) @ G, step.weights)


@method(
    kind="continual",
    paper="Feng et al., Progressive Learning without Forgetting, 2022",
    needs=("new",),
    tasks=("classification",),
    aliases=("progressive_lwf",),
    cost="a pass over the new rows for the answers of every earlier model, and in each step a forward and backward for "
    "every one; all earlier models are kept",
)
def plwf(
    lambda_o: Annotated[float, Field(ge=0)] = 1.0,
    temperature: Annotated[float, Field(gt=0)] = 2.0,
    teachers: Teachers = "all",
    projection: Projection = "pairwise",
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Learn the new classes and reproduce, on the new rows, what the model after each earlier experience says of them.

    Equation: g_0 is the gradient of CE(new) over the classes of this experience, g_i that of lambda_o times the mean of
    -softmax(q_i / T) log softmax(s / T) over the classes that model i had learned, without a factor T^2. The step is
    sum_i of g_i, from which for every other g_j, in a random order, min(g . g_j, 0) / |g_j|^2 g_j is taken off.
    ``projection="sum"`` projects g_0 and the sum of the others off each other alone, ``none`` adds all up;
    ``teachers="last"`` keeps the model before alone, which without projection is ``lwf`` with a local loss.
    Needs: new rows, and to be told where experiences end; stores no rows, but every earlier model.
    Fails: where new rows say little of old ones, as every method that only distils; the cost of a step grows with
    every experience. A cross-entropy over all classes drowns what the teachers ask.
    """
    total = progressive("new", lambda_o, temperature, teachers, projection)
    return Descent(total, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum, carry=True))
