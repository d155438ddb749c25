"""Learning experience by experience, against a bare loop over the same rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio import data, methods, networks
from oblivio.bench.images import images
from oblivio.bench.row import Row
from oblivio.bench.timing import REPEATS, by_turns, clock, ratios, timed
from oblivio.core.plan import Stage
from oblivio.data.streams.experience import Experience
from oblivio.learners.learner import Learner
from oblivio.sources import Tensors

TASKS, ROWS, BATCH, RATE = 5, 6_000, 128, 0.05
BLOCKS = 3  # turns of a second each
EXACT = 11.0  # no target: what a backward for each of ten classes could cost at most
LONG = 10  # experiences of the stream on which nothing may grow
SETTINGS = {"lr": RATE, "epochs": 1, "batch": BATCH}
ONLINE = ("er", "der_pp", "online_ewc", "ewc", "si", "mas", "lwf")


def rows(repeats: int = REPEATS) -> list[Row]:
    """Naive, replay and EWC against the bare naive loop; what grows with the stream; what an evaluation passes."""
    found = images("fashion_mnist", TASKS * ROWS)
    stream = experiences(found.x, found.y, TASKS)
    model = networks.build("mlp", (1, 28, 28), 10)
    plans: dict[str, tuple[float, Stage]] = {
        "naive": (1.10, methods.naive(**SETTINGS)),
        "replay (er), one replay batch a step": (2.2, methods.er(buffer=500, replay=BATCH, **SETTINGS)),
        "EWC, online form, Fisher of the labels over all rows": (2.2, methods.online_ewc(fisher="true", **SETTINGS)),
        "EWC, online form, exact Fisher over the classes": (EXACT, methods.online_ewc(fisher="all", **SETTINGS)),
    }
    work: dict[str, Callable[[], object]] = {"bare": partial(bare, model, found.x, found.y)}
    work |= {name: partial(learned, model, plan, stream) for name, (_, plan) in plans.items()}
    times = by_turns({**work, "again": work["bare"]}, repeats, BLOCKS)
    note = (
        f"{found.note}mlp 400-400, {TASKS} experiences of {ROWS:,} rows of 28x28, batch {BATCH}, one epoch; the bare "
    )
    note += f"naive loop takes {min(times['bare']):.2f} s"
    noise = ratios(times["again"], times["bare"])
    made = [
        Row(name, limit, ratios(times[name], times["bare"]), note, noise=noise) for name, (limit, _) in plans.items()
    ]
    return [*made, *(grown(name, model, found.x, found.y, repeats) for name in ONLINE), evaluation(model, stream)]


def experiences(x: Tensor, y: Tensor, tasks: int) -> list[Experience]:
    """The rows in order, cut into experiences that share their outputs."""
    root = Tensors({"x": x, "y": y, "task": torch.zeros(len(x), dtype=torch.long)})
    classes = tuple(range(10))
    return [
        Experience(root.take(part), i, classes, "domain") for i, part in enumerate(torch.arange(len(x)).chunk(tasks))
    ]


def bare(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """The same experiences, batches and optimiser by hand."""
    net = copy.deepcopy(model)
    opt = torch.optim.SGD(net.parameters(), lr=RATE, fused=True)
    for part in torch.arange(len(x)).chunk(TASKS):
        for batch in part[torch.randperm(len(part))].split(BATCH):
            opt.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            opt.step()
    return net


def learned(model: nn.Module, plan: Stage, stream: list[Experience]) -> Learner:
    """A learner at the end of the stream."""
    learner = Learner(model, plan, "classification")
    for experience in stream:
        learner.learn(experience)
    return learner


def grown(name: str, model: nn.Module, x: Tensor, y: Tensor, repeats: int) -> Row:
    """The time that experience 10 takes over that of experience 2."""
    stream, found = experiences(x, y, LONG), []
    for _ in range(repeats):
        learner = Learner(model, methods.registry.get(name)(**SETTINGS), "classification")
        seconds = [timed(partial(learner.learn, experience), clock) for experience in stream]
        found.append(min(seconds[-3:]) / min(seconds[1:4]))
    note = f"{len(stream[0]):,} rows each; the fastest of experiences 8 to 10 over that of 2 to 4"
    return Row(f"{name}: experience 10 over experience 2", 1.1, found, note)


def evaluation(model: nn.Module, stream: list[Experience]) -> Row:
    """The rows that pass the model when all experiences are evaluated, over the test rows there are."""
    learner = Learner(model, methods.naive(**SETTINGS), "classification").learn(stream[0])
    passed: list[int] = []
    learner.model.register_forward_hook(lambda _, inputs, __: passed.append(len(inputs[0])))
    data.History(stream).record(learner)
    return Row(
        "evaluation of all experiences", 1.0, [sum(passed) / sum(map(len, stream))], "rows forwarded over test rows"
    )
