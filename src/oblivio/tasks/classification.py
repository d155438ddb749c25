"""Classification: one class of many, one of two through a single logit, or several labels at once."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from oblivio.core.source import Batch
from oblivio.core.task import Task


class Classification(Task):
    """Outputs are logits of shape (n, C), targets integers of shape (n,); the loss is cross-entropy."""

    name, figure = "classification", "accuracy"

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(out, batch["y"].long(), reduction="none")

    def distance(self, out: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """KL(target || out) of the predicted distributions."""
        return F.kl_div(F.log_softmax(out, 1), F.log_softmax(target, 1), reduction="none", log_target=True).sum(1)

    def relabel(self, out: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        return torch.randint(out.shape[1], (len(batch),), generator=generator, device=out.device)

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """The logit of the true class less the log of the summed exponentials of the others."""
        own = F.one_hot(batch["y"].long(), out.shape[1]).bool()
        return out[own] - out.masked_fill(own, -torch.inf).logsumexp(1)

    def divergence(self, out: Tensor, other: Tensor) -> Tensor:
        """Jensen-Shannon divergence of the predicted distributions, in nats: at most log 2."""
        p, q = F.log_softmax(out, 1), F.log_softmax(other, 1)
        middle = torch.logaddexp(p, q) - math.log(2)
        each = [F.kl_div(middle, side, reduction="none", log_target=True).sum(1) for side in (p, q)]
        return (each[0] + each[1]) / 2

    def differ(self, out: Tensor, other: Tensor) -> Tensor:
        return (out.argmax(1) != other.argmax(1)).float()

    def confidences(self, out: Tensor) -> Tensor:
        return out.softmax(1).sort(1, descending=True).values

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        return (out.argmax(1) == batch["y"]).float()


class Binary(Task):
    """Outputs are one logit, shape (n,) or (n, 1), targets 0 or 1; the loss is binary cross-entropy."""

    name, figure = "binary", "accuracy"

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(out.flatten(), batch["y"].float().flatten(), reduction="none")

    def distance(self, out: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """KL of the predicted Bernoulli distributions."""
        return _bernoulli(out, target).flatten()

    def relabel(self, out: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (len(batch),), generator=generator, device=out.device)

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        return out.flatten() * (2 * batch["y"].float().flatten() - 1)

    def divergence(self, out: Tensor, other: Tensor) -> Tensor:
        return _jensen_shannon(out, other).flatten()

    def differ(self, out: Tensor, other: Tensor) -> Tensor:
        return ((out > 0) != (other > 0)).float().flatten()

    def confidences(self, out: Tensor) -> Tensor:
        return _both(out.reshape(len(out), 1))

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        return ((out.flatten() > 0) == (batch["y"].flatten() > 0.5)).float()


class Multilabel(Task):
    """Outputs are logits of shape (n, L), targets 0 or 1 of the same shape; losses are summed over the labels."""

    name, figure = "multilabel", "label accuracy"

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(out, batch["y"].float(), reduction="none").sum(1)

    def distance(self, out: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return _bernoulli(out, target).sum(1)

    def relabel(self, out: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (len(batch), out.shape[1]), generator=generator, device=out.device)

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """The sum of the log odds of an example's true labels."""
        return (out * (2 * batch["y"].float() - 1)).sum(1)

    def divergence(self, out: Tensor, other: Tensor) -> Tensor:
        """Summed over the labels."""
        return _jensen_shannon(out, other).sum(1)

    def differ(self, out: Tensor, other: Tensor) -> Tensor:
        return ((out > 0) != (other > 0)).float().mean(1)

    def confidences(self, out: Tensor) -> Tensor:
        """Of each label's more likely value, greatest first."""
        return out.abs().sigmoid().sort(1, descending=True).values

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        """The share of an example's labels that are right."""
        return ((out > 0) == (batch["y"] > 0.5)).float().mean(1)


def _bernoulli(out: Tensor, target: Tensor) -> Tensor:
    p = target.sigmoid()
    yes, no = F.logsigmoid(target) - F.logsigmoid(out), F.logsigmoid(-target) - F.logsigmoid(-out)
    return p * yes + (1 - p) * no


def _jensen_shannon(out: Tensor, other: Tensor) -> Tensor:
    middle = torch.logit((out.sigmoid() + other.sigmoid()) / 2, eps=1e-7)
    return 0.5 * (_bernoulli(middle, out) + _bernoulli(middle, other))


def _both(out: Tensor) -> Tensor:
    p = out.abs().sigmoid()
    return torch.cat([p, 1 - p], 1)
