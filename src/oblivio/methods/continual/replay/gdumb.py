"""GDumb: keep a balanced sample, forget the network, and train a fresh one on the sample alone. A sanity check."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem, rng
from oblivio.core.seeds import mix
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.how import clip
from oblivio.modules.fitted import refit
from oblivio.modules.fresh import redraw
from oblivio.registry import method
from oblivio.sources import Buffer, Joined

AT_ONCE = 4096  # rows that pass the memory together; without effect on what it keeps
CLIP = 10.0  # the gradient's norm at most


@edit
def collect(problem: Problem, memory: Buffer) -> None:
    """Let every new row pass the memory once, in random order."""
    new, generator = problem.source("new"), rng(problem, "gdumb", "order")
    order = torch.randperm(len(new), generator=generator, device=generator.device).cpu()
    for i, rows in enumerate(order.split(AT_ONCE)):
        memory.offer(new.batch(rows), mix(problem.seed, problem.turn, "gdumb", i))


@edit
def anew(problem: Problem, memory: Buffer) -> None:
    """Draw all weights afresh; what is fitted to rows is fitted to the memory."""
    torch.default_generator.manual_seed(mix(problem.seed, problem.turn, "gdumb"))
    redraw(problem.model)
    refit(problem.model, memory)


@term(whole=True)
def mixed(step: Step, on: On, probability: float) -> Tensor:
    """The training loss; with ``probability`` of images with a box of another one each, and of its label as much."""
    batch, draw = step.batch(on), step.rng("cutmix")
    u = torch.rand(4, generator=draw, device=draw.device).tolist()
    if u[0] >= probability or batch["x"].dim() != 4:
        return step.task.each(step.out(on), batch).mean()
    other = _partners(batch, draw)
    down, across = (_span(size, at, math.sqrt(u[1])) for size, at in zip(batch["x"].shape[2:], u[2:], strict=True))

    def pasted(given: Batch) -> Batch:
        x = given["x"].clone()
        x[:, :, down, across] = given["x"][other.to(x.device)][:, :, down, across]
        return given.but(x=x)

    out = step.out(on, via=pasted)
    share = (down.stop - down.start) * (across.stop - across.start) / batch["x"][0, 0].numel()
    theirs = batch.but(y=batch["y"][other.to(batch["y"].device)])
    return ((1 - share) * step.task.each(out, batch) + share * step.task.each(out, theirs)).mean()


def _partners(batch: Batch, draw: torch.Generator) -> Tensor:
    """For each row the place of another: so many rows on in the memory's order, whatever the order of the batch."""
    by_row = batch.rows.argsort()
    far = int(torch.randint(1, max(len(batch), 2), (1,), generator=draw, device=draw.device))
    return by_row.roll(far)[by_row.argsort()]


def _span(size: int, at: float, part: float) -> slice:
    """A stretch of ``part`` of a side around the place ``at``, cut off at the edges."""
    centre, half = int(at * size), int(part * size) // 2
    return slice(max(0, centre - half), min(size, centre + half))


@dataclass(frozen=True)
class Restarts:
    """A tenth of the rate in the first epoch, all of it in the second; then cosines down to the share ``least``.

    The k-th cosine begins at epoch 2^k and is as long.
    """

    epochs: int
    least: float

    def __call__(self, step: Step) -> float:
        epoch = step.t * self.epochs // step.end
        if not epoch:
            return 0.1
        begin = 1 << (epoch.bit_length() - 1)
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * (epoch - begin) / begin)) / 2


@method(
    kind="continual",
    paper="Prabhu et al., GDumb: A Simple Approach that Questions Our Progress in Continual Learning, ECCV 2020",
    needs=("new",),
    tasks=("classification",),
    aliases=("greedy_sampler_dumb_learner",),
    cost="a whole training on the stored rows after every experience, nothing on the stream itself; the stored rows",
)
def gdumb(
    buffer: Annotated[int, Field(gt=0)] = 500,
    cutmix: Annotated[float, Field(ge=0, le=1)] = 0.5,
    lr_max: Annotated[float, Field(gt=0)] = 0.05,
    lr_min: Annotated[float, Field(ge=0)] = 5e-4,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    wd: Annotated[float, Field(ge=0)] = 1e-6,
    epochs: Annotated[int, Field(gt=0)] = 256,
    batch: Annotated[int, Field(gt=0)] = 16,
) -> Stage:
    """Store rows so that classes stay equal; when asked, train a network from random weights on what is stored.

    A method that does worse does not use the stream. It is asked at the end of every experience, so T experiences cost
    T trainings; nothing passes from one network to the next.
    Equation: a row is stored if its class has fewer than buffer / (classes seen) rows, in the place of a random row of
    the largest class where all is full; then min CE(memory) by SGD with a cosine rate from ``lr_max`` to ``lr_min``
    that starts again after 2, 4, 8, ... epochs. With probability ``cutmix`` a batch of images (n, c, h, w) gets boxes
    of other images, and their labels by area (CutMix, alpha 1); rows of another form do not. Gradient norms end at 10.
    Needs: labels; no boundaries. Modules that can draw their weights anew (``reset_parameters``).
    A deletion takes rows out of the memory; the network was trained on them until one is trained anew on what is left:
    ``learner.forget(ids, "retrain")`` does that and is then exact in their contents. That they came at all, and
    their labels, had a part in which other rows are stored.
    Fails: with a memory of a few rows a class, where methods that also use the stream are better.
    """
    memory = Buffer(buffer, policy="balanced")
    stored = Joined(memory)
    opt = sgd(lr_max, momentum, wd, Restarts(epochs, lr_min / lr_max))
    train = Descent(mixed(stored, cutmix), how=clip(CLIP), over=stored, epochs=epochs, batch=batch, opt=opt)
    return collect(memory) >> anew(memory) >> train
