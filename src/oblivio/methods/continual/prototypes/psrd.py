"""Prototype-sample relation distillation: nothing is stored but what each old prototype says of the new rows."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.modules.heads import last_linear, linear_layer
from oblivio.modules.prototypes import Prototypes, prototype_head
from oblivio.registry import method
from oblivio.sources.derived import Through
from oblivio.terms.distill import outputs


class Views(Through):
    """The batch of ``of``, each row read twice and changed by normal noise of its own: first views, then second ones.

    Where reading is random (a transform), the two readings differ by that too. Rows read in order are as they are.
    """

    random = views = True

    def __init__(self, of: str, noise: float) -> None:
        super().__init__((of,), f"{of}_views")
        self.noise = noise

    def draw(self, n: int, step: Step) -> Batch:
        rows = step.drawn(self.of[0]).rows
        batch = self.batch(torch.cat([rows, rows]))
        x = batch["x"]
        drawn = torch.randn(x.shape, generator=step.rng(self.name), device=x.device, dtype=x.dtype)
        return batch.but(x=x + self.noise * drawn)

    def __repr__(self) -> str:
        return f"Views({self.of[0]!r}, noise={self.noise})"


@term(whole=True, taps=("features",))
def contrast(step: Step, on: On, tau: float) -> Tensor:
    """Supervised contrastive loss: the mean over anchors with a positive of their mean -log p of a positive."""
    step.out(on)
    z, y = F.normalize(step.tap(on, "features"), dim=1), step.batch(on)["y"].to(step.device)
    alone = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log = (z @ z.T / tau).masked_fill(alone, -torch.inf).log_softmax(1)
    positive = (y[:, None] == y) & ~alone
    count = positive.sum(1)
    return -(log.masked_fill(~positive, 0).sum(1) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


@term(taps=("features",))
def nearest(step: Step, on: On) -> Tensor:
    """Cross-entropy of the current classes' prototypes to embeddings that stay where they are."""
    step.out(on)
    z, layer = step.tap(on, "features").detach(), step.problem.features
    out = step.call(lambda nets: nets.get_submodule(layer)(z))  # type: ignore[union-attr]
    return step.task.each(step.task.view(out, step.batch(on), "current"), step.batch(on))


@term(whole=True, frozen=(outputs,))
def relation(step: Step, on: On) -> Tensor:
    """Cross-entropy between what each old prototype said of the samples of the batch and what it says, over samples."""
    policy = getattr(step.task, "outputs", None)
    old = None if policy is None else policy.columns("old")
    then, now = step.frozen(on, outputs), step.out(on)
    if old is not None:
        then, now = then[:, old], now[:, old]
    return -(then.softmax(0) * now.log_softmax(0)).sum(0).mean()


@edit
def prototypes(problem: Problem, dim: int, tau: float) -> None:
    """The surgery, once in the life of a model."""
    layer = last_linear(problem.model)
    if not isinstance(linear_layer(problem.model, layer), Prototypes):
        problem.operate(prototype_head, layer=layer, dim=dim, tau=tau, seed=mix(problem.seed, "psrd"))


@method(
    kind="continual",
    paper="Asadi et al., Prototype-Sample Relation Distillation: Towards Replay-Free Continual Learning, ICML 2023",
    needs=("new",),
    tasks=("classification",),
    aliases=("prd", "prototype_sample_relation_distillation"),
    cost="two views of each row, and the model before on them; a projector and a vector a class; no rows are stored",
)
def psrd(
    tau: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=0)] = 2.0,
    beta: Annotated[float, Field(ge=0)] = 1.0,
    dim: Annotated[int, Field(gt=0)] = 128,
    noise: Annotated[float, Field(ge=0)] = 0.1,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    epochs: Annotated[float, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Contrast two views of the new rows; let new prototypes chase them; keep how old ones rank them.

    Equation: min SupCon(z) + alpha CE(softmax_c cos(P_c, sg z) / tau) + beta mean_old -sum_x q_c(x) log p_c(x), the CE
    over the classes of the present experience, p_c and q_c softmaxes over the samples of the batch of cos(P_c, z) / tau
    now and at the start of the experience; sg stops the gradient. Served: argmax_c cos(P_c, z). The first experience
    puts a projector to ``dim`` and the prototypes in the place of the head, and has no third term.
    The views are two readings of a row with normal noise of deviation ``noise``; give ``new`` a random transform for
    more. All sums are over the views of a batch, 2 ``batch`` of them.
    Needs: labels, boundaries, a model that ends in a linear layer; in the scenario ``domain`` all prototypes are old.
    Fails: with small batches, which say little of a ranking; a large beta keeps new classes out. In the scenario
    ``class`` it stays far below methods that store rows.
    """
    views = Views("new", noise)
    kept = terms.later * (beta * relation(views))
    total = contrast(views, tau) + alpha * nearest(views) + kept
    train = Descent(total, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum), moves=(views.name,))
    return prototypes(dim, tau) >> train
