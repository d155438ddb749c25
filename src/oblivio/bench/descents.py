"""A Descent against the fastest bare loop: the same batches, the same optimiser, the same weights at the end."""

from __future__ import annotations

import copy
import statistics
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio import networks, terms
from oblivio.bench.bare import MOMENTUM, RATE, Bare, Loss, Rows, Turns
from oblivio.bench.images import Images, images
from oblivio.bench.row import Row
from oblivio.bench.timing import BLOCKS, REPEATS, Times, fastest, ratios, timed
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.term import Term

LONG = 1.6e-3  # seconds: the limits hold for steps of this length or more
ROWS = 20_000
BLOCK = 0.02  # seconds of one block of steps, about
SETS = {"mlp": "mnist", "small-cnn": "fashion_mnist", "vit-tiny": "mnist"}


def one_source(network: str, repeats: int = REPEATS) -> Row:
    """``fit("train")``; batches of 64 rows, doubled until a step is long enough."""
    rows = images(SETS[network], ROWS)
    model = networks.build(network, tuple(rows.x.shape[1:]), 10)
    losses = partial(_cross_entropy, rows)
    batch = 64
    while (seconds := _step(model, losses(), len(rows.x), batch)) < LONG:
        batch *= 2
    problem = Problem(copy.deepcopy(model), task="classification", train=(rows.x, rows.y))
    times, note = _compare(problem, terms.fit("train"), losses, batch, seconds, repeats)
    return _row(f"Descent, one source: {network} on {SETS[network]}", 1.10, times, rows.note + note)


def two_sources(repeats: int = REPEATS) -> Row:
    """``npo("forget") + fit("retain")``, the outputs of the start cached, against two forwards and one backward."""
    rows = images("fashion_mnist", ROWS)
    gone = rows.y == 3
    forget, retain = (Images(rows.x[m], rows.y[m]) for m in (gone, ~gone))
    model = networks.build("small-cnn", tuple(rows.x.shape[1:]), 10)
    problem = Problem(copy.deepcopy(model), task="classification", forget=(forget.x, forget.y), retain=(retain.x, retain.y))
    with torch.no_grad():
        start = torch.cat([_likelihood(model(x), y) for x, y in zip(forget.x.split(512), forget.y.split(512), strict=True)])

    def losses() -> Loss:
        fit, x, y = _cross_entropy(retain, "retain"), forget.x.clone(), forget.y.clone()

        def loss(net: nn.Module, batch: Rows) -> Tensor:
            at = batch["forget"]
            return 2 * F.softplus(_likelihood(net(x.index_select(0, at)), y.index_select(0, at)) - start.index_select(0, at)).mean() + fit(net, batch)

        return loss

    seconds = 2 * _step(model, _cross_entropy(retain, "retain"), len(retain.x), 64, "retain")
    term = terms.npo("forget", beta=1.0) + terms.fit("retain")
    times, note = _compare(problem, term, losses, 64, seconds, repeats, ("forget", "retain"))
    name = "Descent, forget and retain terms, cached frozen output: small-cnn on fashion_mnist"
    return _row(name, 1.15, times, rows.note + note)


def fixed_cost(repeats: int = REPEATS) -> Row:
    """What a step costs beside its arithmetic: the difference for a model of 27 weights, on one thread."""
    x, y = torch.rand(4096, 8), torch.arange(4096) % 3
    rows, model, threads = Images(x, y), nn.Linear(8, 3), torch.get_num_threads()
    problem = Problem(copy.deepcopy(model), task="classification", train=(x, y))
    try:
        torch.set_num_threads(1)
        times, _ = _compare(problem, terms.fit("train"), partial(_cross_entropy, rows), 64, BLOCK / 200, repeats)
    finally:
        torch.set_num_threads(threads)
    micro = [1e6 * (a - b) / 200 for a, b in zip(times["descent"], times["contiguous"], strict=True)]
    note = f"a linear model of 27 weights, where a bare step takes {1e6 * min(times['contiguous']) / 200:.0f} us"
    return Row("fixed cost of a step", 100, micro, note, "us", ratios(times["again"], times["contiguous"]))


def _compare(problem: Problem, term: Term, losses: Losses, batch: int, seconds: float, repeats: int,
             sources: tuple[str, ...] = ("train",)) -> tuple[Times, str]:
    """Times of a block of steps, one a repeat, and in words what was compared. The bare loops must end alike."""
    block = max(2, round(BLOCK / seconds))
    turns = Turns(block, problem.model, losses, sources)
    descent = Descent(term, opt=sgd(RATE, MOMENTUM), over=sources[0], steps=block * (1 + repeats * BLOCKS), batch=batch)
    Run(descent, problem, watch=[turns]).go()
    far = turns.alike(problem.model)
    times = {name: fastest(values[1:]) for name, values in turns.times.items()}  # the first block warms up
    best = _best(times)
    note = f"batch {batch}, bare step {1e3 * min(times[best]) / block:.2f} ms ({best}); weights apart by {far:.2g}"
    return times, note


def _row(name: str, limit: float, times: Times, note: str) -> Row:
    noise = ratios(times["again"], times["contiguous"])
    return Row(name, limit, ratios(times["descent"], times[_best(times)]), note, noise=noise)


def _best(times: Times) -> str:
    return min((name for name in times if name not in ("descent", "again")), key=lambda name: statistics.median(times[name]))


def _step(model: nn.Module, loss: Loss, rows: int, batch: int, source: str = "train") -> float:
    """Seconds of a bare step."""
    bare, batches = Bare(model, loss), [{source: torch.randperm(rows)[:batch]}]
    bare(batches)
    return min(timed(lambda: bare(batches)) for _ in range(5))


def _cross_entropy(rows: Images, source: str = "train") -> Loss:
    x, y = rows.x.clone(), rows.y.clone()
    return lambda net, batch: F.cross_entropy(net(x.index_select(0, batch[source])), y.index_select(0, batch[source]))


def _likelihood(out: Tensor, y: Tensor) -> Tensor:
    return -F.cross_entropy(out, y, reduction="none")
