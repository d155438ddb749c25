"""NegMerge: many fine-tunings on the forgotten rows, and the steps on which all of them agree are taken back."""

from __future__ import annotations

from functools import reduce
from operator import rshift
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.grads import Grads
from oblivio.core.opt import adam
from oblivio.core.part import Part
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.registry import method

ORIGIN = "negmerge"  # the snapshot that all fine-tunings start from


class Votes(Part):
    """The running sum of task vectors, and the sign they all have so far; two vectors, however many are added."""

    def add(self, vector: Grads) -> None:
        """One more task vector. An entry of zero agrees with none."""
        signs = {n: v.sign().to(torch.int8) for n, v in vector.items()}
        known: Grads = self.state.get("sign", signs)
        total: Grads = self.state.get("sum", {})
        self.state["sum"] = {n: total[n] + v if n in total else v for n, v in vector.items()}
        self.state["sign"] = {n: s.where(s == known[n], 0) for n, s in signs.items()}
        self.state["count"] = self.state.get("count", 0) + 1

    def mean(self, agreed: bool) -> Grads:
        """The mean vector; with ``agreed`` its entries are zero where the signs differed."""
        keep = {n: s != 0 if agreed else torch.ones_like(s) for n, s in self.state["sign"].items()}
        return {n: v * keep[n] / self.state["count"] for n, v in self.state["sum"].items()}

    def __repr__(self) -> str:
        return "votes"


@term
def noisy(step: Step, on: On, scale: float) -> Tensor:
    """The training loss on inputs with Gaussian noise of deviation ``scale``."""
    x = step.batch(on)["x"]
    noise = step.extra(on, "noise", lambda batch, g: torch.randn(batch["x"].shape, generator=g, device=g.device))
    out = step.out(on, via=lambda batch: batch.but(x=x + scale * noise))
    return step.task.each(out, step.batch(on))


def fine_tuning(k: int, lr: float, epochs: float, batch: int, noise: float) -> Stage:
    """The ``k``-th of 36 settings round those given, in an order whose beginnings vary all four; ``k = 0`` is these.

    Rates and epochs are the given ones, a third and three times as much (epochs a quarter), batches whole and a
    quarter, inputs without noise and with it.
    """
    first, second = k % 9, k // 9 % 4
    rate, length = (1, 1 / 3, 3)[first % 3], (1, 1 / 4, 3)[first // 3]
    small, loud = (second % 2) ^ (first % 2), (second // 2) ^ (first // 3 % 2)
    loss = noisy("forget", noise if loud else 0.0)
    size = max(batch // 4, 1) if small else batch
    return Descent(loss, opt=adam(rate * lr), epochs=length * epochs, batch=size)


@edit
def begin(problem: Problem, votes: Votes) -> None:
    """Keep the weights, which all fine-tunings start from; nothing is voted yet."""
    staying(problem)
    problem.keep(ORIGIN)
    votes.state.clear()


@edit
def collect(problem: Problem, votes: Votes) -> None:
    """Add what fine-tuning has changed, and go back; batch-norm statistics are the kept ones again."""
    start = problem.kept(ORIGIN)
    votes.add({n: w.detach() - start[n] for n, w in problem.weights("model.*").items()})
    problem.restore(ORIGIN)


@edit
def subtract(problem: Problem, votes: Votes, agreed: bool, floor: float, most: float) -> None:
    """Take s tau from the weights, s the one of 0.05, 0.10, ... ``most`` with the lowest figure on ``forget``.

    Only those count that leave rows which stay at ``floor`` of their figure; of equals the first, the smallest of all
    where none counts.
    """
    vector, rows = votes.mean(agreed), staying(problem)
    weights = {n: w.detach() for n, w in problem.weights("model.*").items()}
    start, least = {n: w.clone() for n, w in weights.items()}, floor * problem.score(rows)
    best, chosen = float("inf"), 1
    for i in range(1, max(round(most / 0.05), 1) + 1):
        _shift(weights, start, vector, 0.05 * i)
        left = problem.score("forget")
        if left < best and problem.score(rows) >= least:
            best, chosen = left, i
        if best == 0:
            break
    _shift(weights, start, vector, 0.05 * chosen)


def _shift(weights: Grads, start: Grads, vector: Grads, scale: float) -> None:
    for name, weight in weights.items():
        weight.copy_(start[name] - scale * vector[name])


def staying(problem: Problem) -> Source:
    """Rows that tell what is kept: ``valid`` rows of classes that the retained rows have, else the retained rows."""
    retain = problem.source("retain")
    if "valid" not in problem.sources:
        return retain
    valid = problem.source("valid")
    return valid.take(torch.isin(_labels(valid), _labels(retain)))


def _labels(source: Source) -> Tensor:
    labels = [batch["y"].cpu() for batch in source.batches(4096)]
    return torch.cat(labels)


@method(
    paper="Kim et al., NegMerge: Sign-Consensual Weight Merging for Machine Unlearning, ICML 2025",
    needs=("forget", "retain"),
    tasks=("classification",),
    serves=("class",),
    refusal="it looks for the lowest accuracy on the forgotten rows, where one retrained without random rows has more",
    aliases=("task_arithmetic", "task_negation", "neg_merge"),
    cost="runs fine-tunings over forget, then up to 20 most evaluations of forget and of the rows that stay",
)
def negmerge(
    merge: Literal["consensus", "mean", "single"] = "consensus",
    runs: Annotated[int, Field(gt=0, le=36)] = 6,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    epochs: Annotated[float, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 64,
    noise: Annotated[float, Field(ge=0)] = 0.2,
    floor: Annotated[float, Field(gt=0, le=1)] = 0.95,
    most: Annotated[float, Field(gt=0)] = 2.0,
) -> Stage:
    """Fine-tune on the forgotten rows under many settings, and subtract the mean change where all signs agree.

    Equation: tau_k = theta_k - theta for ``runs`` fine-tunings, min CE(forget) by Adam; tau = mean_k tau_k where all
    tau_k have one sign, else 0; theta <- theta - s tau, with s from a grid up to ``most``: lowest accuracy on forget
    among those that keep ``floor`` of the accuracy on rows that stay. ``mean`` leaves out the vote, ``single`` is one
    fine-tuning: task arithmetic.
    Needs: forgotten rows with labels; retained rows, or ``valid`` rows beside them, for the scale alone. Two vectors
    are held, however many runs.
    Fails: where the forgotten rows are fitted to the end, fine-tuning has no gradient to follow; input noise and the
    higher rates give it one. The scale goes to the floor on purpose: ask for a higher one where the rest counts more.
    """
    votes = Votes()
    stages: list[Stage] = [begin(votes)]
    for k in range(1 if merge == "single" else runs):
        stages += [fine_tuning(k, lr, epochs, batch, noise), collect(votes)]
    return reduce(rshift, [*stages, subtract(votes, merge == "consensus", floor, most)])
