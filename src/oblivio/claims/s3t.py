"""S3T: more orders of the slices serve more deletions without training, and what is served never saw what went."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import digits
from oblivio.claims.sisa import equal
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.learners._orders import prefix
from oblivio.learners.s3t import s3t
from oblivio.learners.shards import Sharded
from oblivio.terms import fit

SHARDS, SLICES, BUDGET, RUNS = 5, 6, 4, 200
AFTER = (20, 40)  # deletions
SETTINGS = {"shards": SHARDS, "slices": SLICES, "lr": 3e-3, "batch": 16, "retrain": "never"}


def one_order(budget: int, **settings: Any) -> Callable[..., Sharded]:
    """The same order of the slices, as often as the budget allows."""
    return functools.partial(s3t(budget=1, **settings), orders=[range(SLICES)] * budget)


def measure(method: Method, seed: int, runs: int = RUNS) -> Figures:
    """Deletions until nothing is left; a slice deleted, against a rebuild; accuracy after deletions, untrained."""
    net, rows, test = pretrained(seed)
    make: Callable[..., Sharded] = lambda budget: method(budget=budget, **SETTINGS)(net, seed=seed, workers=1)  # noqa: E731
    outlived = {f"deletions_{b}": outlives(make(b).orders, seed, runs) for b in range(1, SLICES + 1)}
    many, one, anew = make(BUDGET), s3t(budget=1, **SETTINGS)(net, seed=seed, workers=1), make(BUDGET)
    for learner in (many, one):
        learner.learn(rows)
    slice_ = [name for name in rows.ids.tolist() if many.place(name) == (0, many.orders[0][2])]
    anew.learn(rows.take([i for i, n in enumerate(rows.ids.tolist()) if many.place(n)[0] == 0 and n not in slice_]))
    start = {"s3t": accuracy(many, test), "sisa": accuracy(one, test)}
    goes = [*slice_, *_others(rows, slice_, seed)][: len(slice_) + max(AFTER)]
    many.forget(slice_)
    at = many.served[0]  # of shard 0; the others are as they were
    same = float(equal(many.model(*at), anew.model(*at)).double().mean())
    one.forget(slice_)
    found = {}
    for number, name in enumerate(goes[len(slice_) :], 1):
        for word, learner in (("s3t", many), ("sisa", one)):
            learner.forget([name])
            if number in AFTER:
                found[f"{word}_{number}"] = accuracy(learner, test)
    return {**outlived, "same": same, **start, **found}


class Block(nn.Module):
    """Adds two linear layers with ReLU between them to its input, as a block of a transformer does to each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.out(self.into(x).relu())
        return x + added


def pretrained(seed: int) -> tuple[nn.Module, Source, Source]:
    """A net of six blocks that learned the classes 5 to 9, with a new head; rows of 0 to 4 to learn and to test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks, head = nn.Sequential(*(Block(64) for _ in range(SLICES))), nn.Linear(64, 10)
        net = nn.Sequential(OrderedDict(flatten=nn.Flatten(), blocks=blocks, head=head))
        high, low, test = (rows.take(where) for rows, where in zip(*_split(), strict=True))
        plan = Descent(fit("train"), opt=adam(1e-3), epochs=10, batch=64)
        Run(plan, Problem(net, task="classification", seed=seed, train=high)).go()
        head.reset_parameters()
    return net, low, test


def _split() -> tuple[list[Source], list[Any]]:
    train, test = digits().train, digits().test
    low = column(train, "y") < 5
    return [train, train, test], [~low, low, column(test, "y") < 5]


def _others(rows: Source, gone: list[Any], seed: int) -> list[Any]:
    order = np.random.default_rng(mix(seed, "deletions")).permutation(len(rows))
    return [name for name in rows.ids[order].tolist() if name not in set(gone)]


def outlives(orders: Sequence[Sequence[int]], seed: int, runs: int) -> float:
    """The mean number of deletions, each in a random slice of a random shard, after which no shard has a stage left."""
    found = []
    for run in range(runs):
        draws = np.random.default_rng(mix(seed, "simulation", run))
        touched: list[set[int]] = [set() for _ in range(SHARDS)]
        alive, number = set(range(SHARDS)), 0
        while alive:
            shard, piece = int(draws.integers(SHARDS)), int(draws.integers(SLICES))
            touched[shard].add(piece)
            number += 1
            if not any(prefix(order, touched[shard]) for order in orders):
                alive.discard(shard)
        found.append(number)
    return fmean(found)


def accuracy(learner: Sharded, test: Source) -> float:
    """On the test rows; of the best constant answer, where nothing is left to serve."""
    y = torch.as_tensor(column(test, "y"))
    try:
        out = learner.predict(test)
    except BadInput:
        return float(torch.bincount(y).max() / len(y))
    return float((out.argmax(1) == y).double().mean())


CLAIM = Claim(
    says="The number of deletions served without training grows with the number of orders, to 1.5 times that of one "
    "order and more; every served model is, bit for bit, the one built without the deleted rows; after deletions "
    "without training four orders are more accurate than one.",
    trained="digits 0 to 4 in 5 shards of 6 slices; a net of six blocks, pretrained on digits 5 to 9; a slice goes, "
    "then rows one by one",
    method=s3t,
    controls={"the same order for all of the budget": one_order},
    measure=measure,
    holds=(
        "deletions_1 < deletions_2 < deletions_3 < deletions_4 < deletions_5 < deletions_6",
        "deletions_6 >= 1.5 * deletions_1",
        "s3t_20 > sisa_20",
        "s3t_40 > sisa_40",
    ),
    always=("same == 1",),
    changed=(
        Changed("rate and batch", "2e-4 and 64 to 128, for adapters of a pretrained ViT", "3e-3 and 16",
                "whole blocks of a small net move, on 20 rows a slice; chosen on seed 100"),
    ),
    fast=lambda method, seed: measure(method, seed, 20),
)  # fmt: skip
