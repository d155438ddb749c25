"""Deep regression unlearning: a network that knows only the retained rows says what to answer on the others."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem, rng
from oblivio.core.step import Step
from oblivio.core.term import On, Term, term
from oblivio.edits import fresh
from oblivio.registry import method
from oblivio.sources import Joined
from oblivio.terms.toward import toward

BLIND = "blindspot"  # the net beside the model


def l1(step: Step, out: Tensor, target: Tensor) -> Tensor:
    """Absolute errors in units of the task's scale, summed over the targets, shape (n,)."""
    scale: Tensor = step.task.scale.to(out)  # type: ignore[attr-defined]
    return ((out.reshape(len(out), -1) - target.reshape(len(out), -1)) / scale).abs().sum(1)


@term
def absolute(step: Step, on: On, net: str = "model") -> Tensor:
    """The absolute error of a net."""
    return l1(step, step.out(on, net), step.batch(on)["y"])


def attention(a: Tensor) -> Tensor:
    """Where an activation is large, shape (n, places): a^2 divided by its norm.

    Of images it is the mean over the channels, dim 1, of sequences that over the last dim.
    """
    square = a.square()
    square = square.mean(1) if a.dim() > 3 else square.mean(2) if a.dim() == 3 else square
    return F.normalize(square.flatten(1), dim=1)


class blindspot(Term):
    """Retained rows: |f - y|. Forgotten ones: |f - b| + beta sum over layers of mean (att(a_f) - att(a_b))^2.

    ``on`` holds the forgotten rows as part 0; b is the net ``blindspot``. The mean over a batch weighs both kinds by
    their share of it. Layers are the inputs of all linear and convolutional ones but the first.
    """

    def __init__(self, on: On, beta: float) -> None:
        self.on, self.beta = on, beta

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]
        """Layers of both nets, known once the model is."""
        return tuple(f"{net}.{layer}" for net in ("model", BLIND) for layer in self.state.get("layers", ()))

    def prepare(self, problem: Problem) -> None:
        modules = problem.model.named_modules()
        self.state["layers"] = [name for name, m in modules if isinstance(m, (nn.Linear, _ConvNd))][1:]

    def __call__(self, step: Step) -> Tensor:
        batch, out, blind = step.batch(self.on), step.out(self.on), step.out(self.on, BLIND).detach()
        apart = l1(step, out, blind)
        for layer in self.state["layers"]:
            mine, other = (attention(step.tap(self.on, f"{net}.{layer}")) for net in ("model", BLIND))
            apart = apart + self.beta * (mine - other.detach()).square().mean(1)
        values = torch.where(batch["part"] == 0, apart, l1(step, out, batch["y"]))
        return values.sum() / step.count(self.on)


class gaussian(toward):
    """The training loss, with targets of the rows of part 0 drawn once from a normal like that of all targets."""

    def find(self, problem: Problem) -> dict[str, Tensor]:
        """The targets of all rows, of the shape they have."""
        batches = list(problem.source(self.on).batches(4096))
        y, part = (torch.cat([batch[name] for batch in batches]) for name in ("y", "part"))
        y, gone = y.float(), part == 0
        drawn = torch.randn(y[gone].shape, generator=rng(problem, "gaussian"), device=y.device)
        return {"target": y.index_put((gone,), y.mean(0) + y.std(0) * drawn)}


@method(
    paper="Tarun et al., Deep Regression Unlearning, ICML 2023",
    needs=("forget", "retain"),
    tasks=("regression",),
    aliases=("blindspot", "gaussian_amnesiac"),
    cost="blindspot_epochs over retain and epochs over all rows, each row of these through two networks",
)
def deep_regression_unlearning(
    variant: Literal["blindspot", "gaussian"] = "blindspot",
    beta: Annotated[float, Field(ge=0)] = 50.0,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    blindspot_epochs: Annotated[float, Field(gt=0)] = 5,
    epochs: Annotated[float, Field(gt=0)] = 5,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Answer on the forgotten rows as a fresh network does that learned the retained ones for a short while.

    Equation: b is a fresh network after ``blindspot_epochs`` of min |b - y| on retain; then over batches of all rows
    min r [|f - b| + beta sum_l mean (att(a_l) - att(b_l))^2] on forget + (1 - r) |f - y| on retain, r the share of
    forgotten rows in the batch, att an activation's squares divided by their norm. The variant ``gaussian`` trains on
    all rows by the task's loss, with targets of the forgotten ones drawn once from N(mean y, std y).
    Needs: forgotten and retained rows with targets; modules that can draw their weights anew (``reset_parameters``).
    Fails: where the target is smooth, a retrained model still predicts the forgotten range well, and this one does
    not; a blindspot of too few steps teaches noise, so the epochs are more than the paper's 2 and 1 (for 10,000 rows).
    """
    every = Joined("forget", "retain")
    if variant == "gaussian":
        return Descent(gaussian(every), opt=adam(lr), epochs=epochs, batch=batch)
    blind = Descent(absolute("retain", BLIND), f"{BLIND}.*", opt=adam(lr), epochs=blindspot_epochs, batch=batch)
    return fresh(BLIND) >> blind >> Descent(blindspot(every, beta), opt=adam(lr), epochs=epochs, batch=batch)
