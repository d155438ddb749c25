"""SCAR: features of forgotten rows go over to the nearest other class, and unrelated inputs hold the rest in place."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import On, Term
from oblivio.modules.features import features
from oblivio.records.feature_stats import distances
from oblivio.registry import method
from oblivio.terms.distill import outputs


def recorded(problem: Problem) -> dict[str, Any]:
    """The record ``feature_stats``."""
    if "feature_stats" not in problem.records:
        raise BadInput(
            'scar needs the record feature_stats, made at training by records.make("feature_stats", problem)'
        )
    stats: dict[str, Any] = problem.records["feature_stats"]
    return stats


def labels(problem: Problem, on: On) -> Tensor:
    """The classes of all rows of a source."""
    return torch.cat([batch["y"] for batch in problem.source(on).batches(4096)]).cpu()


def gone(problem: Problem, on: On) -> Tensor:
    """The classes of which the forgotten rows hold all that the record counted."""
    stats, asked = recorded(problem), labels(problem, on)
    counts = (asked[:, None] == stats["classes"]).sum(0)
    whole: Tensor = stats["classes"][counts >= stats["count"]]
    return whole


class move(Term):
    """The squared distance of features from the class that was nearest at the start, of those that stay.

    It is never a row's own. ``state["target"]`` is its place in the record, for every row.
    """

    taps = ("features",)

    def __init__(self, on: On) -> None:
        self.on = on

    def prepare(self, problem: Problem) -> None:
        stats = recorded(problem)
        barred = torch.isin(stats["classes"], gone(problem, self.on))
        barred = barred | (stats["classes"] == labels(problem, self.on)[:, None])
        apart = distances(features(problem, self.on).cpu(), stats)
        self.state["target"] = apart.masked_fill(barred, torch.inf).argmin(1)

    def __call__(self, step: Step) -> Tensor:
        apart = distances(step.tap(self.on, "features").flatten(1), recorded(step.problem))
        target = self.state["target"][step.batch(self.on).rows.cpu()].to(apart.device)
        return apart.gather(1, target[:, None]).sum() / step.count(self.on)


class hold(Term):
    """The distance from the frozen outputs, divided by ``temperature``, to the present ones, on unrelated inputs.

    Classes that go with ``going`` have the row's lowest frozen output; rows that the start gave to them count nothing.
    """

    frozen = (outputs,)

    def __init__(self, on: On, going: On, temperature: float) -> None:
        self.on, self.going, self.temperature = on, going, temperature

    def prepare(self, problem: Problem) -> None:
        self.state["gone"] = gone(problem, self.going)

    def __call__(self, step: Step) -> Tensor:
        target, away = step.frozen(self.on, outputs), self.state["gone"].to(step.device)
        stays = ~torch.isin(target.argmax(1), away)
        lowest = target.amin(1, keepdim=True).expand(-1, len(away))
        target = target.index_copy(1, away, lowest) / self.temperature
        values = step.task.distance(step.out(self.on), target, step.batch(self.on))
        return (values * stays).sum() / step.count(self.on)


def forgotten(problem: Problem) -> bool:
    """Whether less than a hundredth of the forgotten rows is named rightly."""
    return problem.score("forget") < 0.01


@method(
    paper="Bonato et al., Is Retain Set All You Need in Machine Unlearning? Restoring Performance of Unlearned Models "
    "with Out-Of-Distribution Images, ECCV 2024",
    needs=("forget", "proxy", "feature_stats"),
    serves=("class",),
    refusal="it takes every forgotten row to another class, where a model retrained without random rows still gets "
    "most right",
    aliases=("selective_distillation_class_and_architecture_agnostic_unlearning",),
    cost="one pass over forget and one over proxy, then epochs over forget and a proxy batch beside each; the record "
    "holds a matrix of the features' width squared for every class",
)
def scar(
    lambda1: Annotated[float, Field(gt=0)] = 1.0,
    lambda2: Annotated[float, Field(ge=0)] = 5.0,
    temperature: Annotated[float, Field(gt=0)] = 1.0,
    lr: Annotated[float, Field(gt=0)] = 5e-4,
    epochs: Annotated[float, Field(gt=0)] = 180,
    batch: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Without retained rows: draw forgotten rows to the nearest other class, and keep the answers on unrelated inputs.

    Equation: min lambda1 d(z, k) + lambda2 KL(start || f)(proxy); d(z, k) = u' P_k u, u = T(z)/|T(z)| - mu_k/|mu_k|, T
    the root of the features, mu_k and P_k the class's mean and inverse correlation; k the nearest class at the start
    other than the row's own. Stops as soon as less than a hundredth of the forgotten rows is named rightly.
    Needs: forgotten rows with labels; inputs of any kind as ``proxy``; the record ``feature_stats``, made before the
    training rows were discarded; features of 0 or more.
    Fails: where the proxy's inputs do not reach what the rest relies on. The paper takes six proxy batches in turn
    beside one batch of forgotten rows, here both are drawn at every step, so its 30 epochs are 180; it sets the outputs
    of classes that go to the lowest of a batch, here of the row; the variant without forgotten rows is left out.
    Lambda1, lambda2, temperature and rate are those of the official command line; batches are small for small classes.
    """
    loss = lambda1 * move("forget") + lambda2 * hold("proxy", "forget", temperature)
    return Descent(loss, opt=adam(lr), over="forget", epochs=epochs, batch=batch, until=forgotten, every=5)
