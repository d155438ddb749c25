"""Classification: one class of many, one of two through a single logit, or several labels at once."""

from __future__ import annotations

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

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        """The share of an example's labels that are right."""
        return ((out > 0) == (batch["y"] > 0.5)).float().mean(1)


def _bernoulli(out: Tensor, target: Tensor) -> Tensor:
    p = target.sigmoid()
    yes, no = F.logsigmoid(target) - F.logsigmoid(out), F.logsigmoid(-target) - F.logsigmoid(-out)
    return p * yes + (1 - p) * no
