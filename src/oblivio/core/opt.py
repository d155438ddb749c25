"""Opt: a torch optimiser and a schedule, its state by weight name, so that weights may join, leave and come back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oblivio.core.grads import Grads, like
from oblivio.core.part import Part
from oblivio.core.shards import is_sharded

if TYPE_CHECKING:
    from oblivio.core.problem import Problem
    from oblivio.core.source import Source
    from oblivio.core.step import Step

FUSED = (torch.optim.Adam, torch.optim.AdamW)  # take sharded weights in their fused steps
Schedule = Callable[["Step"], float]


class Opt(Part):
    """``kind(params, lr=lr, **options)``, the rate multiplied by ``schedule(step)``.

    Two stages given the same object share its state; ``carry`` keeps it for the next experience.
    """

    def __init__(
        self,
        kind: type[torch.optim.Optimizer],
        lr: float,
        schedule: Schedule | None = None,
        carry: bool = False,
        **options: Any,
    ) -> None:
        self.kind, self.lr, self.schedule, self.carry, self.options = kind, lr, schedule, carry, options
        self._torch: torch.optim.Optimizer | None = None
        self._names: Grads = {}

    def open(self, weights: Grads) -> None:
        """Take these weights; what the state knows of them by name comes back, and what has gone stays in it."""
        if weights is self._names:
            return
        kept, self._names = self.save(), weights
        self._torch = self.kind(self._groups(weights), lr=self.lr, **self.options)  # type: ignore[call-arg]
        self.load(kept)
        if self.options.get("momentum") and not self.options.get("dampening"):
            for weight in weights.values():  # the fused step cannot take weights with and without a buffer together
                self._torch.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))

    def _groups(self, weights: Grads) -> list[dict[str, Any]]:
        """One group of all; what is sharded apart, as one fused step cannot take both kinds."""
        plain, sharded = ([w for w in weights.values() if is_sharded(w) is kind] for kind in (False, True))
        fused = {"fused": self.options["fused"] and self.kind in FUSED} if "fused" in self.options else {}
        groups: list[dict[str, Any]] = [{"params": plain}, {"params": sharded, **fused}]
        return [group for group in groups if group["params"]]

    def clear_all(self) -> None:
        """Forget all moments: a stage opens afresh."""
        self.state.clear()
        self._torch, self._names = None, {}

    def step(self, grads: Grads, step: Step) -> None:
        """One update with these gradients; weights without one stay."""
        assert self._torch is not None
        for name, weight in self._names.items():
            weight.grad = like(grads.get(name), weight)
        if self.schedule is not None:
            rate = self.lr * self.schedule(step)
            for group in self._torch.param_groups:
                group["lr"] = rate
        self._torch.step()
        for weight in self._names.values():
            weight.grad = None

    def clear(self, name: str, index: Any = ...) -> None:
        """Forget the moments of reset entries of one weight."""
        assert self._torch is not None
        for value in self._torch.state.get(self._names[name], {}).values():
            if isinstance(value, Tensor) and value.dim():
                value[index] = 0

    def forget(self, rows: Source, problem: Problem) -> str:
        """Moments are means over all gradients so far: they cannot be taken apart, so they go."""
        held = bool(self.save())
        self.clear_all()
        return "moments dropped" if held else ""

    def save(self) -> dict[str, Any]:
        if self._torch is None:
            return self.state
        live = {n: dict(self._torch.state[w]) for n, w in self._names.items() if w in self._torch.state}
        return {**self.state, **live}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        if self._torch is None:
            return
        for name, weight in self._names.items():
            if name in state:
                self._torch.state[weight] = {k: like(v, weight) for k, v in state[name].items()}

    def __repr__(self) -> str:
        options = "".join(f", {k}={v}" for k, v in self.options.items() if k != "fused" and v)
        told = self.schedule is not None and not hasattr(self.schedule, "__name__")  # one with settings of its own
        return f"{self.kind.__name__.lower()}({self.lr:g}{options}{f', schedule={self.schedule!r}' if told else ''})"


def sgd(
    lr: float, momentum: float = 0.0, wd: float = 0.0, schedule: Schedule | None = None, carry: bool = False
) -> Opt:
    """Stochastic gradient descent, with weight decay ``wd`` added to the gradient."""
    return Opt(torch.optim.SGD, lr, schedule, carry, momentum=momentum, weight_decay=wd, fused=True)


def adam(
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    wd: float = 0.0,
    schedule: Schedule | None = None,
    carry: bool = False,
) -> Opt:
    """Adam, with weight decay ``wd`` added to the gradient."""
    return Opt(torch.optim.Adam, lr, schedule, carry, betas=betas, weight_decay=wd, fused=True)


def adamw(
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    wd: float = 0.01,
    schedule: Schedule | None = None,
    carry: bool = False,
) -> Opt:
    """Adam with decoupled weight decay ``wd``."""
    return Opt(torch.optim.AdamW, lr, schedule, carry, betas=betas, weight_decay=wd, fused=True)


def common(name: str, lr: float) -> Opt:
    """The form of an optimiser that methods share: ``sgd`` with momentum 0.9, ``adamw`` without decay."""
    return {"sgd": lambda: sgd(lr, 0.9), "adamw": lambda: adamw(lr, wd=0.0)}[name]()


def adagrad(lr: float, initial: float = 0.0, eps: float = 1e-10, carry: bool = False) -> Opt:
    """Adagrad: each weight's rate falls with the sum of its squared gradients, which begins at ``initial``."""
    return Opt(torch.optim.Adagrad, lr, None, carry, initial_accumulator_value=initial, eps=eps, fused=True)


def rmsprop(lr: float, decay: float = 0.99, eps: float = 1e-8, carry: bool = False) -> Opt:
    """RMSprop: as Adagrad, with a running mean of the squares that keeps the share ``decay`` a step."""
    return Opt(torch.optim.RMSprop, lr, None, carry, alpha=decay, eps=eps)


def cosine(step: Step) -> float:
    """From 1 down to 0 along half a cosine over the stage."""
    return 0.5 * (1 + math.cos(math.pi * step.progress))


def linear(step: Step) -> float:
    """From 1 down to 0 in a straight line over the stage."""
    return 1 - step.progress
