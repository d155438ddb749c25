"""Regression: real targets, squared error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Batch, Source
from oblivio.core.task import Task
from oblivio.modules.targets import spread


class Regression(Task):
    """Outputs and targets of shape (n,) or (n, k); the loss is the squared error in units of ``scale``, summed over k.

    Settings of methods are chosen for losses of about 1, so ``scale`` is best the spread of the targets. The figure
    that tables show stays in their own units.

    Args:
        scale: what an error is divided by, one number or one a target.

    Raises:
        BadInput: a scale that is not positive.
    """

    name, figure, higher = "regression", "squared error", False

    def __init__(self, scale: float | Sequence[float] = 1.0) -> None:
        self.scale = torch.as_tensor(scale, dtype=torch.float).reshape(-1)
        if not bool((self.scale > 0).all()):
            raise BadInput(f"regression: scale is {scale}; it divides errors and must be above 0")

    @classmethod
    def of(cls, source: Source) -> Regression:
        """Scaled by the standard deviation of each target of these rows; 1 for one that is constant or not finite."""
        deviation = spread(source)[1]
        return cls(deviation.where(deviation.isfinite(), 1.0).tolist())

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        return self.distance(out, batch["y"].float(), batch)

    def distance(self, out: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return self.divergence(out, target)

    def score(self, out: Tensor, batch: Batch) -> Tensor:
        """Log-likelihood under a normal whose deviation is ``scale``, up to a constant."""
        return -0.5 * self.each(out, batch)

    def divergence(self, out: Tensor, other: Tensor) -> Tensor:
        """The squared difference in units of ``scale``."""
        return (_errors(out, other) / self.scale.to(out)).square().sum(1)

    def relabel(self, out: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The batch's own targets in random order."""
        y: Tensor = batch["y"]
        return y[torch.randperm(len(y), generator=generator, device=out.device)]

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        return _errors(out, batch["y"].float()).square().sum(1)


def _errors(out: Tensor, target: Tensor) -> Tensor:
    """Outputs minus targets, shape (n, k)."""
    return out.reshape(len(out), -1) - target.reshape(len(out), -1)
