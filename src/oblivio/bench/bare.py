"""The loop that one would write by hand for the batches of a Descent, and the watch that lets them take turns."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from oblivio.bench.timing import Times, clock, rotated, timed
from oblivio.core.run import Run
from oblivio.core.step import Step

Rows: TypeAlias = dict[str, Tensor]  # which rows of each source make a batch
Loss: TypeAlias = Callable[[nn.Module, Rows], Tensor]
Losses: TypeAlias = Callable[[], Loss]  # each with its own copy of the rows: none finds them in the processor's cache

RATE, MOMENTUM = 0.01, 0.9
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SAME, CLOSE = 1e-5, 1e-2  # tolerances in one memory format, and between two


def in_format(model: nn.Module, memory: str) -> nn.Module:
    """A copy of ``model`` whose images and kernels lie as the name of ``FORMATS`` says."""
    return copy.deepcopy(model).to(memory_format=FORMATS[memory])  # type: ignore[call-overload]


class Bare:
    """Forward, backward, fused optimiser, and nothing else, on a copy of ``model`` in one memory format."""

    def __init__(self, model: nn.Module, loss: Loss, memory: str = "contiguous") -> None:
        self.model, self.loss = in_format(model, memory), loss
        self.opt = torch.optim.SGD(self.model.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)

    def __call__(self, batches: list[Rows]) -> None:
        for rows in batches:
            self.opt.zero_grad()
            self.loss(self.model, rows).backward()
            self.opt.step()


def offered(model: nn.Module, losses: Losses) -> dict[str, Bare]:
    """A bare loop in each memory format that makes a difference, and ``again``, the first one twice."""
    formats = list(FORMATS) if any(w.dim() == 4 for w in model.parameters()) else ["contiguous"]
    return {**{memory: Bare(model, losses(), memory) for memory in formats}, "again": Bare(model, losses())}


class Turns:
    """A watch of a Run: after each ``block`` steps of its Descent, every bare loop makes the same steps, timed."""

    def __init__(self, block: int, model: nn.Module, losses: Losses, sources: tuple[str, ...]) -> None:
        self.block, self.start, self.sources = block, copy.deepcopy(model), sources
        self.bare = offered(model, losses)
        self.times: Times = {name: [] for name in ("descent", *self.bare)}
        self._batches: list[Rows] = []
        self._since = clock()

    def __call__(self, run: Run, stage: object, step: Step) -> None:
        self._batches.append({name: step.drawn(name).rows for name in self.sources})
        if len(self._batches) < self.block:
            return
        self.times["descent"].append(clock() - self._since)
        for name in rotated(list(self.bare), len(self.times["descent"])):
            self.times[name].append(timed(lambda bare=self.bare[name]: bare(self._batches)))  # type: ignore[misc]
        if len(self.times["descent"]) == 1:
            self._check(run.problem.model, list(self.bare), CLOSE)
        self._batches = []
        self._since = clock()

    def alike(self, model: nn.Module) -> float:
        """How far ``model`` and the loops in its memory format ended apart; AssertionError where that is not rounding.

        Another format rounds differently, which hundreds of steps amplify: those loops are compared after one block.
        """
        layout = [w.stride() for w in model.parameters()]
        own = [name for name, bare in self.bare.items() if [w.stride() for w in bare.model.parameters()] == layout]
        return self._check(model, own, SAME)

    def _check(self, model: nn.Module, names: list[str], tolerance: float) -> float:
        far = max(apart(model, self.bare[name].model, self.start) for name in names)
        if not far <= tolerance:
            raise AssertionError(f"the Descent and the bare loop end {far:.2g} of their way apart")
        return far


def apart(a: nn.Module, b: nn.Module, start: nn.Module) -> float:
    """How far the weights of ``a`` and ``b`` are from each other, as a share of the way they went from ``start``."""
    one, two, zero = (torch.cat([w.detach().flatten() for w in net.parameters()]) for net in (a, b, start))
    return float((one - two).norm() / (two - zero).norm())
