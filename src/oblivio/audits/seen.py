"""One pass of a model over a source, and all that probes need of it: outputs, features, what every layer gave."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.audits.subjects import Subject
from oblivio.core.errors import BadInput
from oblivio.core.problem import PASS, Nets, Problem
from oblivio.core.surgery import Wrap

FEATURED = 10_000  # rows of a source, at most, whose features are kept
LAYERED = 1024  # of these, at most, evenly taken, for which what every layer gave is kept


@dataclass(frozen=True)
class Seen:
    """What a model gave on the rows of one source, on the CPU, in evaluation mode.

    Attributes:
        out: served outputs of all rows, shape (n, ...).
        score: the task's score of every row, shape (n,): the log-likelihood of its own target, up to a constant.
        margin: the task's margin, shape (n,).
        quality: the task's figure, shape (n,).
        features: inputs of the feature layer, of the sampled rows, shape (m, d); None: the model has no such layer.
        layers: by layer, its outputs on some of the sampled rows, maps and tokens averaged, shape (l, d).
    """

    out: Tensor
    score: Tensor
    margin: Tensor
    quality: Tensor
    features: Tensor | None = None
    layers: Mapping[str, Tensor] = field(default_factory=dict)


def at(problem: Problem, subject: Subject) -> Problem:
    """The problem with the networks of ``subject`` in the place of its own; its passes are counted apart."""
    other = copy.copy(problem)
    other.nets, other.passes, other.work = Nets(subject.nets).to(problem.team.device), {}, {}
    return other


def look(problem: Problem, subject: Subject, on: str, sample: Tensor, *, layers: bool = True) -> Seen:
    """Pass ``subject`` over the source ``on``.

    Args:
        problem: gives task and sources.
        subject: the model.
        on: name of a source whose rows have targets.
        sample: places of the rows whose features are kept, in rising order.
        layers: whether the outputs of all layers are kept too.
    """
    there = at(problem, subject)
    source, task = there.source(on), there.task
    parts: list[list[Tensor]] = []
    wanted = torch.zeros(len(source), dtype=torch.bool)
    wanted[sample] = True
    deep = torch.zeros(len(source), dtype=torch.bool)
    if layers:
        deep[sample[:: -(-len(sample) // LAYERED) or 1]] = True
    with torch.no_grad(), there.evaluating(), _taps(there, subject) as taps:
        for batch in source.batches(PASS):
            rows = batch.rows.cpu()
            taps.keep(wanted[rows], deep[rows])
            out = there.served(there.nets, batch)
            values = (out, task.score(out, batch), task.margin(out, batch), task.quality(out, batch))
            parts.append([value.detach().float().cpu() for value in values])
    out, score, margin, quality = (torch.cat(each) for each in zip(*parts, strict=True))
    return Seen(out, score, margin, quality, *taps.found())


def feature_layer(there: Problem, subject: Subject) -> str | None:
    """Full name of the layer whose input are the features; None where the model has none."""
    if subject.features is not None:
        return subject.features or None
    try:
        named: str | None = there._features
        if named is not None and bare(there.model) is not there.model:
            return f"model.net.{named}"  # the wrapped module keeps its layers' names below ``net``
        return there.features
    except BadInput:
        return None


class _Taps:
    """Hooks' memory of one pass. ``keep`` says before each batch which of its rows are wanted."""

    def __init__(self) -> None:
        self.features: list[Tensor] = []
        self.layers: dict[str, list[Tensor]] = {}
        self.rows = self.deep = torch.zeros(0, dtype=torch.bool)
        self.batch = self.asked = self.asked_deep = 0

    def keep(self, rows: Tensor, deep: Tensor) -> None:
        self.rows, self.deep, self.batch = rows.nonzero().flatten(), deep.nonzero().flatten(), len(rows)
        self.asked, self.asked_deep = self.asked + len(self.rows), self.asked_deep + len(self.deep)

    def feature(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if len(self.rows) and len(inputs[0]) == self.batch:  # a layer over all nodes of a graph has no row a row
            value = inputs[0].detach()
            self.features.append(value[self.rows.to(value.device)].flatten(1).float().cpu())

    def layer(self, name: str, out: Any) -> None:
        if len(self.deep) and isinstance(out, Tensor) and out.dim() > 1 and len(out) == self.batch:
            self.layers.setdefault(name, []).append(pooled(out.detach()[self.deep.to(out.device)]).float().cpu())

    def found(self) -> tuple[Tensor | None, dict[str, Tensor]]:
        features = torch.cat(self.features) if self.features else None
        layers = {name: torch.cat(each) for name, each in self.layers.items()}
        whole = features if features is not None and len(features) == self.asked else None
        return whole, {name: each for name, each in layers.items() if len(each) == self.asked_deep}


def pooled(out: Tensor) -> Tensor:
    """One vector a row: maps (n, c, h, w) averaged over places, tokens (n, t, d) over tokens."""
    if out.dim() == 4:
        return out.mean((2, 3))
    return out.mean(1) if out.dim() == 3 else out.flatten(1)


@contextlib.contextmanager
def _taps(there: Problem, subject: Subject) -> Iterator[_Taps]:
    taps, handles = _Taps(), []
    named = dict(there.nets.named_modules())
    layer = feature_layer(there, subject)
    if layer is not None:
        handles.append(named[layer].register_forward_pre_hook(taps.feature))
    for name, module in weighted(there.model).items():
        handles.append(module.register_forward_hook(lambda _, __, out, name=name: taps.layer(name, out)))
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def bare(model: nn.Module) -> nn.Module:
    """The network inside a Wrap around one net; else the model itself."""
    inside = getattr(model, "net", None) if isinstance(model, Wrap) else None
    return inside if isinstance(inside, nn.Module) else model


def weighted(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that hold a matrix of weights of their own, by the names they have in the bare network."""
    return {
        name: module for name, module in bare(model).named_modules()
        if any(p.dim() > 1 for p in module.parameters(recurse=False))
    }  # fmt: skip
