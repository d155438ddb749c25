"""The units of a regression's targets, as a part of the model: a network works in numbers of mean 0 and spread 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oblivio.core.source import Source
from oblivio.modules.fitted import AT_ONCE, checked, moments


class TargetUnits(nn.Module):
    """From a network's outputs to the targets' own units: ``y * std + mean``, one pair a target.

    A network starts with outputs around 0; targets from 25 to 346 would be far away for any learning rate. Mean and
    deviation are those of the targets that the model is trained on. They are buffers: data, not weights.

    Args:
        outputs: the number of targets.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("std", torch.ones(outputs))

    def forward(self, y: Tensor) -> Tensor:
        """``(n, outputs)`` in, the same out."""
        return y * self.std + self.mean

    def refit(self, source: Source) -> None:
        """Take mean and deviation from the targets of these rows. Raises BadInput where they are not finite."""
        mean, std = checked(*spread(source), "target")
        self.mean.copy_(mean)
        self.std.copy_(std)


def spread(source: Source) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every target, of shape ``(targets,)``; the deviation of a constant one is 1."""
    return moments(batch["y"].reshape(len(batch), -1).T for batch in source.batches(AT_ONCE))
