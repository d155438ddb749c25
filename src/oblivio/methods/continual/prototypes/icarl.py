"""iCaRL: learn with exemplars and the old answers, and serve by the nearest mean of exemplars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Edit, Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.modules.features import features
from oblivio.modules.heads import last_linear, linear_layer
from oblivio.modules.nearest_mean import NearestMean, serve_nearest_mean, served_classes
from oblivio.registry import method
from oblivio.sources import Exemplars, Joined, Memory
from oblivio.terms.distill import outputs

DROP = 5.0  # what the rate is divided by at each of ``drops``


@dataclass(frozen=True)
class Drops:
    """The rate divided by ``DROP`` after each of these shares of the training."""

    after: tuple[float, ...]

    def __call__(self, step: Step) -> float:
        return float(DROP ** -sum(step.progress >= share for share in self.after))


class Pool(Joined):
    """New rows and exemplars as one. The exemplars change when it is over, so that answers can be looked up by row."""

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether reading a new row twice may differ."""
        return any(source.random for source in self.found if not isinstance(source, Memory))


@term(frozen=(outputs,))
def binary(step: Step, on: On) -> Tensor:
    """Binary cross-entropy, the mean over the classes so far; the targets of old ones are what the start said."""
    out, seen, old = step.out(on), _columns(step, "seen"), _columns(step, "old")
    targets = F.one_hot(step.batch(on)["y"].long(), out.shape[1]).to(out)
    if old is not None and len(old):
        targets[:, old] = step.frozen(on, outputs)[:, old].sigmoid()
    chosen = slice(None) if seen is None else seen
    return F.binary_cross_entropy_with_logits(out[:, chosen], targets[:, chosen], reduction="none").mean(1)


def _columns(step: Step, which: str) -> Tensor | None:
    """The outputs that count, where classes are added; else None."""
    policy = getattr(step.task, "outputs", None)
    return None if policy is None else policy.columns(which)


def herding(problem: Problem, rows: Source) -> Tensor:
    """The places of rows of one class, in the order that keeps the mean of the first k nearest to that of all.

    Which row comes next does not depend on how many will be kept.
    """
    phi = F.normalize(features(problem, rows))
    mean, chosen = F.normalize(phi.mean(0), dim=0), torch.zeros_like(phi[0])
    left, half, order = torch.zeros(len(phi), device=phi.device), phi.square().sum(1) / 2, []
    for k in range(1, len(phi) + 1):
        place = int((phi @ (k * mean - chosen) - half + left).argmax())  # the least |mean - (phi + chosen) / k|
        order.append(place)
        chosen, left[place] = chosen + phi[place], -torch.inf
    return torch.tensor(order)


@edit
def serve(problem: Problem) -> None:
    """Serve by the nearest mean from now on, with room for every output of the head."""
    layer = last_linear(problem.model)
    missing = linear_layer(problem.model, layer).out_features - served_classes(problem.model)
    if missing > 0:
        problem.operate(serve_nearest_mean, layer=layer, classes=missing)


@edit
def means(problem: Problem, memory: Memory) -> None:
    """Write the normalised means of the normalised features of each class of the memory into the model."""
    model = problem.model
    assert isinstance(model, NearestMean)
    sums = torch.zeros_like(model.means)
    if len(memory):
        labels = memory.batch(torch.arange(len(memory)))["y"].long()
        sums.index_add_(0, labels.to(sums.device), F.normalize(features(problem, memory)))
    model.write(F.normalize(sums))


class Means(Edit):
    """The class means of a memory, worked out anew when rows leave it; stands behind the memory in a plan."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(means(memory).fn, {"memory": memory})

    @property
    def memory(self) -> Memory:
        """What the means are of."""
        found: Memory = self.settings["memory"]
        return found

    def visit(self, problem: Problem, run: Run) -> None:
        super().visit(problem, run)
        self.state["rows"] = len(self.memory)

    def forget(self, rows: Source, problem: Problem) -> str:
        if self.state.get("rows", 0) == len(self.memory) and not problem.moved:
            return ""
        with torch.no_grad():
            self.fn(problem, **self.settings)
        self.state["rows"] = len(self.memory)
        return f"worked out anew from the {len(self.memory)} rows that are left"


@method(
    kind="continual",
    paper="Rebuffi et al., iCaRL: Incremental Classifier and Representation Learning, CVPR 2017",
    needs=("new",),
    tasks=("classification",),
    aliases=("incremental_classifier",),
    cost="a pass over new rows and exemplars for the old answers, one over each new class for herding, one over the "
    "exemplars for the means; the stored rows",
)
def icarl(
    buffer: Annotated[int, Field(gt=0)] = 2000,
    lr: Annotated[float, Field(gt=0)] = 0.1,
    drops: tuple[float, ...] = (),
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    wd: Annotated[float, Field(ge=0)] = 1e-5,
    epochs: Annotated[float, Field(gt=0)] = 50,
    batch: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Train on new rows and exemplars as one pool, old outputs held to their old answers; serve by nearest means.

    Equation: min over pool mean_c BCE(g_c(x), t_c), t_c = [y = c] for new classes and sigmoid(g_c^start(x)) for old
    ones, of new and stored rows alike. Then floor(buffer / classes) exemplars a class by herding: the k-th is the row
    that brings the mean of k features nearest to the mean of all. Served: argmin_c |phi(x) - mu_c|, features phi and
    means mu_c normalised. The rate is divided by 5 after each share ``drops`` of the training. The defaults are
    mammoth's; the paper's are lr 2, drops (0.7, 0.9), 70 epochs and batch 128, for a ResNet: an MLP on digits diverged
    by them.
    Means are those of the network at the end of the last experience; in the middle of one they are out of date. The
    published code averages over mirrored images too, here not. A deletion takes rows out of the exemplars and works out
    the means anew; a class of which nothing is left is served no longer. Which other rows were chosen, and the weights,
    still depend on the rows.
    Needs: new rows, their labels, and to be told where experiences end; classes that are added.
    Fails: in the scenario ``domain`` no class counts as old, and only the exemplars keep what was learned. Herding is
    only slightly better than chance. A method of unlearning that changes the weights leaves the means where they were
    until the next experience ends.
    """
    memory = Exemplars(buffer, by="y", pick=herding)
    pool = Pool("new", memory)
    opt = sgd(lr, momentum, wd, Drops(drops))
    train = Descent(binary(pool), over=pool, epochs=epochs, batch=batch, opt=opt, moves=(pool.name,))
    return serve() >> train >> Means(memory)
