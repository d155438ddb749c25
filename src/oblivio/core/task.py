"""Task: how one kind of model turns a batch into outputs, a per-example loss and a per-example score."""

from __future__ import annotations

import torch
from torch import Tensor

from oblivio.core.source import Batch
from oblivio.core.surgery import Networks


class Task:
    """Base of all tasks.

    ``figure`` names the per-example quality that tables show; ``higher`` says which way is better. Unless they
    say otherwise, methods that take outputs return one value an example, shape (n,).
    """

    name = ""
    figure = ""
    higher = True
    random = False  # whether ``complete`` draws
    wide = False  # whether outputs are too large to keep those of every row

    def complete(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw once what all nets share for this batch (time, noise, mask); here nothing."""
        return batch

    def forward(self, nets: Networks, net: str, batch: Batch) -> Tensor:
        """The outputs of one net on a batch."""
        out: Tensor = nets[net](batch["x"])
        return out

    def recomputes(self, nets: Networks) -> bool:
        """Whether a backward computes parts of the forward again, from the weights as they then are."""
        return False

    def view(self, out: Tensor, batch: Batch, which: str) -> Tensor:
        """The outputs with those out of play that do not count; here all do. See ``tasks.incremental``."""
        return out

    def unmasked(self) -> Task:
        """The same task with outputs of classes that have not come in play too."""
        return self

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        """The training loss of every example."""
        raise NotImplementedError

    def distance(self, out: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """How far outputs are from target outputs: zero where equal, never negative. ``target`` comes first in a KL."""
        raise NotImplementedError

    def score(self, out: Tensor, batch: Batch) -> Tensor:
        """The log-likelihood of every example's own target, up to a constant."""
        return -self.each(out, batch)

    def relabel(self, out: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Random targets in the form of ``batch["y"]``, the true one among those that may be drawn."""
        raise NotImplementedError

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """The evidence for every example's own target on a scale without bounds: log odds where there are odds."""
        return self.score(out, batch)

    def divergence(self, out: Tensor, other: Tensor) -> Tensor:
        """How far two outputs of every example are apart, whichever comes first: zero where equal."""
        raise NotImplementedError

    def differ(self, out: Tensor, other: Tensor) -> Tensor | None:
        """The share of every example's decisions on which two outputs differ; None where nothing is decided."""
        return None

    def confidences(self, out: Tensor) -> Tensor | None:
        """Probabilities of every example's answers, greatest first, shape (n, k); None where there are none."""
        return None

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        """What ``figure`` names, for every example: 1 or 0 for accuracy, the error for a regression."""
        raise NotImplementedError
