"""Regression: real targets, squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from oblivio.core.source import Batch
from oblivio.core.task import Task


class Regression(Task):
    """Outputs and targets of shape (n,) or (n, k); the loss is the squared error, summed over k."""

    name, figure, higher = "regression", "squared error", False

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        return self.distance(out, batch["y"].float(), batch)

    def distance(self, out: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return (out.flatten(1) if out.dim() > 1 else out[:, None]).sub(target.reshape(len(out), -1)).square().sum(1)

    def score(self, out: Tensor, batch: Batch) -> Tensor:
        """Log-likelihood under a unit normal, up to a constant."""
        return -0.5 * self.each(out, batch)

    def relabel(self, out: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The batch's own targets in random order."""
        y: Tensor = batch["y"]
        return y[torch.randperm(len(y), generator=generator, device=out.device)]

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        return self.each(out, batch)
