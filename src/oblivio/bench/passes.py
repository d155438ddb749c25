"""The exact diagonal Fisher against the fastest plain forward and backward pass over the same rows."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from oblivio import networks
from oblivio.bench.bare import FORMATS, in_format
from oblivio.bench.images import Images, images
from oblivio.bench.row import Row
from oblivio.bench.timing import REPEATS, by_turns, ratios
from oblivio.core.importance import fisher
from oblivio.core.problem import Problem

SIZES = (64, 256)  # rows a plain pass; the faster counts
BLOCKS = 4


def on_mlp(repeats: int = REPEATS) -> Row:
    """The mlp on mnist."""
    rows = images("mnist", 2048)
    return _row("diagonal Fisher: mlp on mnist", 1.5, networks.build("mlp", (1, 28, 28), 10), rows, repeats)


def on_pooled(repeats: int = REPEATS) -> Row:
    """Two convolutions of 32 and 64 channels, each followed by pooling, on fashion_mnist."""
    rows = images("fashion_mnist", 256)
    return _row("diagonal Fisher: pooled 32-64 cnn on fashion_mnist", 2.5, pooled(), rows, repeats)


def pooled() -> nn.Module:
    """The usual example network: 3x3 convolutions at full size, 2x2 pooling, a linear layer of 128."""
    first = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10))


def _row(name: str, limit: float, model: nn.Module, rows: Images, repeats: int) -> Row:
    problem = Problem(model, task="classification", train=(rows.x, rows.y))
    exact(problem, rows)
    kinds = [(memory, size) for memory in FORMATS for size in SIZES]
    plain = {f"{memory}, {size} rows": _plain(in_format(model, memory), rows, size) for memory, size in kinds}
    again = _plain(in_format(model, "contiguous"), rows, SIZES[0])
    times = by_turns({"fisher": lambda: fisher(problem, "train"), "again": again, **plain}, repeats, BLOCKS)
    best = min(plain, key=lambda name: statistics.median(times[name]))
    note = f"{rows.note}{len(rows.x)} rows; plain pass {1e3 * min(times[best]):.0f} ms ({best})"
    noise = ratios(times["again"], times[f"contiguous, {SIZES[0]} rows"])
    return Row(name, limit, ratios(times["fisher"], times[best]), note, noise=noise)


def _plain(model: nn.Module, rows: Images, size: int) -> Callable[[], None]:
    x, y = rows.x.clone(), rows.y.clone()

    def go() -> None:
        for a, b in zip(x.split(size), y.split(size), strict=True):
            model.zero_grad()
            F.cross_entropy(model(a), b).backward()

    return go


def exact(problem: Problem, rows: Images, n: int = 4) -> None:
    """The Fisher of the first rows is the mean of their squared gradients, one at a time; else AssertionError."""
    small = Problem(copy.deepcopy(problem.model), task="classification", train=(rows.x[:n], rows.y[:n]))
    weights = small.weights("model.*")
    want = {name: torch.zeros_like(w) for name, w in weights.items()}
    for x, y in zip(rows.x[:n], rows.y[:n], strict=True):
        loss = F.cross_entropy(small.model(x[None]), y[None])
        for name, g in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            want[name] += g.square() / n
    for name, value in fisher(small, "train").items():
        torch.testing.assert_close(value, want[name], rtol=1e-3, atol=1e-8, msg=f"fisher of {name} is not exact")
