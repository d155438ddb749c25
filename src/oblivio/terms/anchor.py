"""The weights after earlier experiences, how much each of them mattered there, and the penalty for leaving them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads, like
from oblivio.core.importance import importance, loss
from oblivio.core.part import Part
from oblivio.core.problem import Problem, rng
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, Term
from oblivio.core.where import Where, as_where

Labels = Literal["all", "true", "sample", "pred"]
Measure: TypeAlias = Callable[[Problem], Grads]
SIZE = 256  # rows a pass of an importance: without effect on it beyond rounding


class Anchor(Part):
    """What holds weights: sum_k Omega_k (theta - theta_k)^2 over the experiences k so far, at a constant cost.

    A sum of squares with weights is one square: with A = sum_k Omega_k and c = sum_k Omega_k theta_k / A it equals
    A (theta - c)^2 and a constant, which has no gradient. The state is ``importance`` (A) and ``weights`` (c), two
    tensors a weight, however many experiences there were. Weights that are added later come in at their own first end.

    Args:
        measure: ``measure(problem)`` gives the importance of every weight to the experience that ends; None where
            another Part calls ``add``.
        gamma: by what A is multiplied at the end of every experience.
        latest: hold all weights at their latest values, c = theta, as the online forms do.
        average: A <- gamma A + (1 - gamma) Omega, where it is gamma A + Omega else.
    """

    def __init__(
        self, measure: Measure | None, gamma: float = 1.0, latest: bool = False, average: bool = False
    ) -> None:
        self.measure, self.gamma, self.latest, self.average = measure, gamma, latest, average

    def consolidate(self, problem: Problem) -> None:
        if self.measure is not None:
            self.add(problem, self.measure(problem))

    def add(self, problem: Problem, fresh: Grads) -> None:
        """Take in the importance of the experience that ends, at the present weights; none given is none had."""
        held, centre = {}, {}
        weights = {n: w.detach() for n, w in problem.weights().items()}
        for name, now in weights.items():
            old = self.of(name, now)
            if old is None:
                if name in fresh:
                    held[name], centre[name] = fresh[name], now.clone()
                continue
            value = fresh[name] if name in fresh else torch.zeros_like(now)
            value = (1 - self.gamma) * value if self.average else value
            held[name] = self.gamma * old[0] + value
            share = torch.where(held[name] > 0, value / held[name], 1)
            centre[name] = now.clone() if self.latest else torch.lerp(old[1], now, share)
        self.state.update(importance=held, weights=centre)

    def of(self, name: str, weight: Tensor) -> tuple[Tensor, Tensor] | None:
        """Importance and anchor of a weight, where and as it lies in memory; None where nothing is known of it."""
        if name not in self.state.get("importance", {}):
            return None
        a, c = (self.state[key][name].to(weight.device) for key in ("importance", "weights"))
        return like(a, weight), like(c, weight)

    def slope(self, weights: Grads) -> Grads:
        """A (theta - c): the gradient of half of what it holds."""
        return {name: a * (weights[name] - c) for name, a, c in self.springs(weights)}

    def springs(self, weights: Grads) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, importance and anchor of those of ``weights`` that it knows."""
        for name, weight in weights.items():
            if (held := self.of(name, weight)) is not None:
                yield name, *held


class penalty(Term):
    """(strength / 2) sum_i A_i (theta_i - c_i)^2 of an Anchor; nothing in the first experience.

    Diverges by gradient descent where lr strength A exceeds 2; ``how.pull`` has the same optimum and does not.
    """

    def __init__(self, anchor: Anchor, strength: float) -> None:
        self.anchor, self.strength = anchor, strength

    def __call__(self, step: Step) -> Tensor:
        springs = self.anchor.springs(step.weights)
        squares = [(a * (step.weights[name] - c).square()).sum() for name, a, c in springs]
        total = torch.stack(squares).sum() if squares else torch.zeros((), device=step.device)
        return 0.5 * self.strength * step.share * total


@dataclass(frozen=True)
class Ones:
    """The measure of plain L2: every chosen weight matters alike."""

    where: Where | str = "model.*"

    def __call__(self, problem: Problem) -> Grads:
        weights, chosen = problem.weights(), as_where(self.where).select(problem)
        return {name: torch.ones_like(weights[name], requires_grad=False) for name in chosen}


@dataclass(frozen=True)
class Fisher:
    """The measure of EWC: the diagonal Fisher, a mean over the rows of ``on``, per example, in evaluation mode.

    Attributes:
        labels: ``all`` is the exact Fisher, sum_c p(c|x) (d log p(c|x) / d theta)^2, over the outputs that count;
            ``sample`` draws c from p once a row; ``true`` takes the data's label (the empirical Fisher), which for
            tasks without classes is the gradient of their own loss; ``pred`` the likeliest class.
        where: which weights; the others are not held.
        on: the rows, those of the experience that ends.
        view: of the outputs that count in training those that the loss uses, as in ``fit``.
        normalise: scale it to mean 1, so that experiences of different loss count alike.
    """

    labels: Labels = "all"
    where: Where | str = "model.*"
    on: On = "new"
    view: str = "all"
    normalise: bool = False

    def __call__(self, problem: Problem) -> Grads:
        extra = {}
        if self.labels != "true":
            self._classes(problem)
        if self.labels == "sample":
            rows, generator = len(problem.source(self.on)), rng(problem, "fisher")
            extra = {"draw": torch.rand(rows, generator=generator, device=generator.device)}
        value = loss if self.labels == "true" and self.view == "all" else LogLikelihood(self.labels, self.view)
        found = importance(problem, self.on, value, self.where, size=SIZE, extra=extra)
        if not self.normalise:
            return found
        mean = sum(float(v.sum()) for v in found.values()) / sum(v.numel() for v in found.values())
        return {name: v / max(mean, 1e-38) for name, v in found.items()}

    def _classes(self, problem: Problem) -> None:
        """Raises BadInput where outputs are no logits of one class of many."""
        row = next(problem.source(self.on).batches(1))
        with torch.no_grad(), problem.evaluating():
            out = problem.task.forward(problem.nets, "model", row)
        p = problem.task.confidences(out)
        if p is None or p.shape != out.shape:
            raise BadInput(
                f"fisher={self.labels!r} needs outputs that are logits of classes, which those of the task "
                f"{problem.task.name!r} are not; use fisher='true'"
            )


@dataclass(frozen=True)
class LogLikelihood:
    """log p(c|x) of the class that ``labels`` names, shape (n,); for ``all`` of each, times sqrt(p(c|x)), (n, C).

    ``true`` is the row's own loss instead, which differs in sign alone where there are classes.
    """

    labels: Labels
    view: str

    def __call__(self, problem: Problem, out: Tensor, batch: Batch) -> Tensor:
        out = problem.task.view(out, batch, self.view)
        if self.labels == "true":
            return problem.task.each(out, batch)
        likely = F.log_softmax(problem.task.view(out, batch, "train"), 1)
        p = likely.detach().exp()
        if self.labels == "all":
            return p.sqrt() * likely
        if self.labels == "pred":
            label = p.argmax(1)
        else:  # the first class whose cumulated probability exceeds a uniform draw, in float64: it sums to 1
            label = (p.double().cumsum(1) <= batch["draw"][:, None]).sum(1).clamp(max=p.shape[1] - 1)
        return likely.gather(1, label[:, None]).squeeze(1)
