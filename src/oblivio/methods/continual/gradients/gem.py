"""GEM: a step must not raise the loss of the stored rows of any earlier experience."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from scipy.optimize import nnls
from torch import Tensor

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.grads import Grads
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.term import Rule, Term, rule
from oblivio.registry import method
from oblivio.sources import Exemplars
from oblivio.terms.vectors import shaped, stacked


def multipliers(gram: Tensor, along: Tensor, gamma: float, eps: float) -> Tensor:
    """The v >= gamma that minimises v' (gram + eps I) v / 2 + along' v; all in float64, shape (k,).

    With v = w + gamma and the Cholesky factor L of P = gram + eps I it is the non-negative least-squares problem
    min |L' w + L^-1 (along + P gamma)|^2.
    """
    P = gram.cpu() + eps * torch.eye(len(gram), dtype=torch.double)
    L = torch.linalg.cholesky(P)
    q = along.cpu() + gamma * P.sum(1)
    b = torch.linalg.solve_triangular(L, q[:, None], upper=False).flatten()
    w, _ = nnls(L.T.numpy(), -b.numpy())
    return torch.from_numpy(w) + gamma


@rule
class constrained(Rule):
    """The gradient nearest to that of ``loss`` that opposes the gradient of no group in ``memory``.

    Passes a step: one of ``loss``, and one over all rows of the memory, each group by itself.
    """

    loss: Term
    memory: Exemplars
    gamma: float = 0.5
    eps: float = 1e-3

    def constraints(self, step: Step) -> list[Grads]:
        """The gradient of every group's mean loss."""
        return [terms.fit(self._share(group)).grad(step) for group in self.memory.groups.unique().tolist()]

    def _share(self, group: int) -> Source:
        """All rows of a group, in every step."""
        rows = self.memory.take(self.memory.groups == group)
        rows.name, rows.size = f"{self.memory.name}/{group}", len(rows)
        return rows

    def grad(self, step: Step, graph: bool = False) -> Grads:
        held = self.constraints(step)  # first, so that ``step.seen`` gives what the loss saw
        g = self.loss.grad(step)
        if not held:
            return g
        G, row = stacked(held, step.weights), stacked([g], step.weights)[0]
        along = G @ row
        if bool((along >= 0).all()):
            return g
        v = multipliers(G @ G.T, along, self.gamma, self.eps)
        return shaped(row + v.to(G.device) @ G, step.weights)


@method(
    kind="continual",
    paper="Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017",
    needs=("new",),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("gradient_episodic_memory",),
    cost="a forward and backward over all stored rows in every step, one experience at a time; their gradients in "
    "float64, and a program with one unknown an experience",
)
def gem(
    buffer: Annotated[int, Field(gt=0)] = 500,
    gamma: Annotated[float, Field(ge=0)] = 0.5,
    eps: Annotated[float, Field(gt=0)] = 1e-3,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Take the gradient nearest to that of the new rows that raises the loss of no earlier experience's stored rows.

    Equation: g where G g >= 0, else g + G' v with v = argmin v' (G G' + eps I) v / 2 + (G g)' v over v >= gamma; the
    rows of G are the gradients of the mean loss of each earlier experience's stored rows. The store holds equal shares
    of random rows, which become smaller as experiences come; the paper keeps the last rows of each instead, which in
    shuffled epochs are random ones too.
    With gamma > 0 every step that opposes one experience is drawn towards all of them, as if they were replayed.
    eps is that of the paper's code: where |G|^2 is not far above it a step may still oppose an experience.
    Needs: new rows, and to be told where experiences end; float64 on the processor for the program.
    Fails: in the scenario ``class`` with gamma = 0, as ``agem``. A step becomes dearer with every experience.
    """
    total = constrained(terms.fit("new"), Exemplars(buffer), gamma, eps)
    return Descent(total, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum, carry=True))
