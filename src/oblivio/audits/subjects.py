"""The models an audit looks at: outcome, original, references, and controls that it must not take for forgetting."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import nn

from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.modules.masked import mask_output

Kind = Literal["outcome", "original", "reference", "control"]
Modules: TypeAlias = Mapping[str, nn.Module]

SEARCH = 16  # halvings of the interval in which the size of the noise lies


@dataclass(frozen=True)
class Subject:
    """A model to be looked at.

    Attributes:
        name: as tables show it; no two of an audit have the same.
        kind: what it is to the request.
        nets: its networks by name.
        features: dotted path of its feature layer in ``nets``; None: the problem's choice, ``""``: it has none.
    """

    name: str
    kind: Kind
    nets: Modules = field(repr=False)
    features: str | None = None


def controls(original: Modules, outcome: Modules, classes: Sequence[int], seed: int) -> list[Subject]:
    """What any method must be told from: hiding the classes that go, and noise as large as the method's own change."""
    masked = [Subject("output masked", "control", mask(original, classes))] if classes else []
    return [*masked, Subject("weight noise", "control", noise(original, outcome, seed))]


def mask(original: Modules, classes: Sequence[int]) -> Modules:
    """The original with the outputs of ``classes`` hidden; its weights are shared, not copied."""
    nets: dict[str, nn.Module] = dict(original)
    mask_output(nets, classes=list(classes))
    return nets


def noise(original: Modules, outcome: Modules, seed: int) -> Modules:
    """The original, each weight tensor moved in a random direction as far as the method moved it."""
    moved = dict(outcome["model"].named_parameters())

    def far(name: str, weight: nn.Parameter) -> float:
        fits = name in moved and moved[name].shape == weight.shape
        return float((moved[name].to(weight) - weight).norm()) if fits else 0.0

    return _shaken(original, far, seed)


def noise_until(problem: Problem, least: float, seed: int) -> Modules:
    """The problem's model with noise on its weights, of the size at which its figure on forgotten rows is ``least``.

    The noise of a tensor is a share of the tensor's own norm, the same share for all, found by halving.
    """
    original = dict(problem.nets.items())
    low, high, tried = 0.0, 4.0, copy.copy(problem)
    for _ in range(SEARCH):
        middle = (low + high) / 2
        tried.nets = type(problem.nets)(_relative(original, middle, seed))
        low, high = (middle, high) if tried.score("forget") > least else (low, middle)
    return _relative(original, high, seed)


def _relative(original: Modules, share: float, seed: int) -> Modules:
    return _shaken(original, lambda _, weight: share * float(weight.norm()), seed)


def _shaken(original: Modules, far: Callable[[str, nn.Parameter], float], seed: int) -> Modules:
    """A copy whose weights are moved in random directions, each tensor by the distance ``far`` says."""
    model, draws = copy.deepcopy(original["model"]), generator(seed, "weight noise")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            step = torch.randn(weight.shape, generator=draws).to(weight)
            weight.add_(step * (far(name, weight) / float(step.norm().clamp_min(1e-12))))
    return {**original, "model": model}
