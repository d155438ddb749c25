"""A Descent against the fastest bare loop: the same batches, the same optimiser, the same weights at the end."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio import networks, terms
from oblivio.bench.bare import MOMENTUM, RATE, Bare, Loss, Losses, Rows, Turns
from oblivio.bench.images import Images, images
from oblivio.bench.row import Row
from oblivio.bench.timing import BLOCKS, REPEATS, Times, fastest, ratios, timed
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.term import Term

LONG = 1.6e-3  # seconds: the limits hold for steps of this length or more
BLOCK = 0.02  # seconds of one block of steps, about
TINY = 200  # steps of one block where they take microseconds
ROWS = 20_000
SETS = {"mlp": "mnist", "small-cnn": "fashion_mnist", "vit-tiny": "mnist"}


@dataclass(frozen=True)
class Case:
    """A term, and ``losses`` that make the same loss by hand; an epoch passes over the first of ``sources``."""

    problem: Problem
    term: Term
    losses: Losses
    sources: tuple[str, ...] = ("train",)
    batch: int = 64

    def compare(self, block: int, repeats: int) -> tuple[Times, float]:
        """Seconds of ``block`` steps, one value a repeat, and how far the Descent and its bare loop ended apart."""
        turns = Turns(block, self.problem.model, self.losses, self.sources)
        steps = block * (1 + repeats * BLOCKS)
        descent = Descent(self.term, opt=sgd(RATE, MOMENTUM), over=self.sources[0], steps=steps, batch=self.batch)
        Run(descent, self.problem, watch=[turns]).go()
        times = {name: fastest(values[1:]) for name, values in turns.times.items()}  # the first block warms up
        return times, turns.alike(self.problem.model)

    def row(self, name: str, limit: float, seconds: float, repeats: int, note: str = "") -> Row:
        """The Descent over the best bare loop; ``seconds`` is about what a step takes."""
        block = max(2, round(BLOCK / seconds))
        times, far = self.compare(block, repeats)
        best = min(times.keys() - {"descent", "again"}, key=lambda name: statistics.median(times[name]))
        note += (
            f"batch {self.batch}, bare step {1e3 * min(times[best]) / block:.2f} ms ({best}); weights {far:.2g} apart"
        )
        return Row(name, limit, ratios(times["descent"], times[best]), note, noise=_noise(times))


def one_source(network: str, repeats: int = REPEATS) -> Row:
    """``fit("train")``; batches of 64 rows, doubled until a step is long enough."""
    rows = images(SETS[network], ROWS)
    model = networks.build(network, tuple(rows.x.shape[1:]), 10)
    losses, batch = partial(_cross_entropy, rows, "train"), 64
    while (seconds := _step(model, losses(), {"train": torch.arange(batch)})) < LONG:
        batch *= 2
    problem = Problem(model, task="classification", train=(rows.x, rows.y))
    case = Case(problem, terms.fit("train"), losses, batch=batch)
    return case.row(f"Descent, one source: {network} on {SETS[network]}", 1.10, seconds, repeats, rows.note)


def two_sources(repeats: int = REPEATS) -> Row:
    """``npo("forget") + fit("retain")``, the outputs of the start cached, against two forwards and one backward."""
    rows = images("fashion_mnist", ROWS)
    forget, retain = (Images(rows.x[chosen], rows.y[chosen]) for chosen in (rows.y == 3, rows.y != 3))
    model = networks.build("small-cnn", tuple(rows.x.shape[1:]), 10)
    with torch.no_grad():
        start = _likelihood(model(forget.x), forget.y)

    def losses() -> Loss:
        fit, x, y = _cross_entropy(retain, "retain"), forget.x.clone(), forget.y.clone()

        def loss(net: nn.Module, batch: Rows) -> Tensor:
            chosen = batch["forget"]
            now = _likelihood(net(x.index_select(0, chosen)), y.index_select(0, chosen))
            return 2 * F.softplus(now - start.index_select(0, chosen)).mean() + fit(net, batch)

        return loss

    seconds = _step(model, losses(), {"forget": torch.arange(64), "retain": torch.arange(64)})
    problem = Problem(model, task="classification", forget=(forget.x, forget.y), retain=(retain.x, retain.y))
    case = Case(problem, terms.npo("forget", beta=1.0) + terms.fit("retain"), losses, ("forget", "retain"))
    name = "Descent, forget and retain terms, cached frozen output: small-cnn on fashion_mnist"
    return case.row(name, 1.15, seconds, repeats, rows.note)


def fixed_cost(repeats: int = REPEATS) -> Row:
    """What a step costs beside its arithmetic: the difference for a model of 27 weights, on one thread."""
    rows = Images(torch.rand(4096, 8), torch.arange(4096) % 3)
    problem = Problem(nn.Linear(8, 3), task="classification", train=(rows.x, rows.y))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times, _ = Case(problem, terms.fit("train"), partial(_cross_entropy, rows, "train")).compare(TINY, repeats)
    finally:
        torch.set_num_threads(threads)
    bare = [1e6 * seconds / TINY for seconds in times["contiguous"]]
    more = [1e6 * seconds / TINY - b for seconds, b in zip(times["descent"], bare, strict=True)]
    note = f"a linear model of 27 weights, where a bare step takes {min(bare):.0f} us"
    return Row("fixed cost of a step", 100, more, note, "us", _noise(times))


def _noise(times: Times) -> list[float]:
    return ratios(times["again"], times["contiguous"])


def _step(model: nn.Module, loss: Loss, rows: Rows) -> float:
    """Seconds of a bare step."""
    bare = Bare(model, loss)
    return min(timed(lambda: bare([rows])) for _ in range(6))


def _cross_entropy(rows: Images, source: str) -> Loss:
    x, y = rows.x.clone(), rows.y.clone()
    return lambda net, batch: F.cross_entropy(net(x.index_select(0, batch[source])), y.index_select(0, batch[source]))


def _likelihood(out: Tensor, y: Tensor) -> Tensor:
    return -F.cross_entropy(out, y, reduction="none")
