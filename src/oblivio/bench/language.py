"""A step of unlearning on a language model against the passes it needs, in time and in number."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio import terms
from oblivio.bench.row import Row
from oblivio.bench.timing import REPEATS, Times, clock, fastest, ratios, rotated, timed
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput, nearest
from oblivio.core.opt import adamw
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.team import ALONE, Team, gather
from oblivio.networks.language import llama
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM

BETA = 0.1
PROMPT = 4  # tokens of a row that do not count

Batches = list[dict[str, Batch]]


@dataclass(frozen=True)
class Config:
    """A Llama with random weights, random rows of tokens, and how much of it is timed."""

    vocabulary: int
    tokens: tuple[int, int]  # the shortest and the longest row
    network: dict[str, Any] = field(default_factory=dict)
    batch: int = 12  # of each source
    rows: int = 240
    block: int = 4  # steps in one block
    blocks: int = 20  # of which the fastest counts
    repeats: int = REPEATS
    close: float = 1e-4  # how far gradients may be apart, as a share of their size
    accelerator: bool = False

    @property
    def team(self) -> Team:
        """This process, on the accelerator in bfloat16 where it needs one."""
        if not self.accelerator:
            return ALONE
        if not torch.accelerator.is_available():
            raise BadInput("this configuration needs an accelerator, and there is none here")
        return gather(precision="bf16")


CONFIGS = {
    "tiny": Config(213, (8, 14)),
    "1b": Config(
        128_256, (96, 128),
        {"layers": 16, "width": 2048, "heads": 32, "num_key_value_heads": 8, "ff": 8192, "context": 2048, "tied": True,
         "initializer_range": 0.02},
        block=2, blocks=5, repeats=3, close=0.1, accelerator=True,
    ),
}  # fmt: skip


def rows(config: str = "tiny") -> list[Row]:
    """``npo("forget") + fit("retain")`` with AdamW, scores of the start cached.

    The limit is on time over that of two forwards and a backward on batches that are ready, without an optimiser. The
    usual code of the field makes five forwards: each source at the present weights and at the reference, one twice.
    """
    if config not in CONFIGS:
        raise BadInput(f"there is no configuration {config!r}{nearest(config, CONFIGS)}")
    how, team = CONFIGS[config], CONFIGS[config].team
    problem = Problem(llama(how.vocabulary, **how.network), task=CausalLM(), team=team, **_sources(how))
    watch = Beside(how, problem)
    calls, since = [0], [0]
    counted = problem.model.register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))

    def begun(run: Run, *_: object) -> None:
        since[0] = calls[0] if run.steps == 1 else since[0]  # what comes before the first step is no step's

    steps = how.block * (1 + how.blocks * how.repeats)
    loss = terms.npo("forget", BETA) + terms.fit("retain")
    Run(Descent(loss, opt=adamw(1e-5), steps=steps, batch=how.batch), problem, watch=[begun, watch]).go()
    counted.remove()
    times = {name: fastest(values[1:], how.blocks) for name, values in watch.times.items()}  # the first warms up
    many = sum(w.numel() for w in problem.model.parameters())
    note = (
        f"Llama of {many:,} weights, {how.batch} rows of {how.tokens[0]} to {how.tokens[1]} tokens of each source, "
        f"{team.device.type}; passes {1e3 * min(times['passes']) / how.block:.1f} ms"
    )
    noise = ratios(times["again"], times["passes"])
    forwards = (calls[0] - since[0]) / (steps - 1)
    return [
        Row(
            f"npo with retain term: {config} Llama", 1.15, ratios(times["descent"], times["passes"]), note, noise=noise
        ),
        Row("forwards in a step of npo with retain term", 2, [forwards], "counted by hooks; usual code: 5", unit=""),
    ]


def _sources(how: Config) -> dict[str, Any]:
    drawn = torch.Generator().manual_seed(0)

    def source() -> Tokens:
        lengths = torch.randint(how.tokens[0], how.tokens[1] + 1, (how.rows,), generator=drawn).tolist()
        sequences = [torch.randint(how.vocabulary, (n,), generator=drawn).tolist() for n in lengths]
        return Tokens(sequences, [PROMPT] * how.rows)

    return {"forget": source(), "retain": source()}


class Beside:
    """A watch of a Run: after each block of its steps the bare passes over the same batches, twice, timed.

    The first step's gradients are compared: AssertionError where the two sides do not compute the same.
    """

    def __init__(self, how: Config, problem: Problem) -> None:
        self.how, self.team = how, problem.team
        self.model = copy.deepcopy(problem.model).train()
        with torch.no_grad():
            self.start = problem.tabulate("forget", lambda _, batch: _score(self._out(batch), batch["y"]), how.batch)
        self.times: Times = {"descent": [], "passes": [], "again": []}
        self._batches: Batches = []
        self._since = self._now()

    def __call__(self, run: Run, stage: object, step: Step) -> None:
        self._batches.append({name: step.drawn(name) for name in ("forget", "retain")})
        if run.steps == 1:
            self._same(step)
        if len(self._batches) < self.how.block:
            return
        self.times["descent"].append(self._now() - self._since)
        work: Callable[[], None] = self._passes
        for name in rotated(["passes", "again"], len(self.times["descent"])):
            self.times[name].append(timed(work, self._now))
        self._batches = []
        self._since = self._now()

    def _now(self) -> float:
        if self.how.accelerator:
            torch.accelerator.synchronize()
        return clock()

    def _passes(self) -> None:
        for batches in self._batches:
            self.model.zero_grad()
            self._loss(batches["forget"], batches["retain"]).backward()

    def _loss(self, forget: Batch, retain: Batch) -> Tensor:
        """The objective as one writes it by hand."""
        apart = _score(self._out(forget), forget["y"]) - self.start[forget.rows.to(self.start.device)]
        logits, target = self._out(retain)[:, :-1], retain["y"][:, 1:]
        each = F.cross_entropy(logits.transpose(1, 2).float(), target, reduction="none").sum(1)
        return 2 / BETA * F.softplus(BETA * apart).mean() + (each / (target >= 0).sum(1)).mean()

    def _out(self, batch: Batch) -> Tensor:
        with self.team.autocast():
            logits: Tensor = self.model(input_ids=batch["x"], use_cache=False).logits
        return logits

    def _same(self, step: Step) -> None:
        self._passes()
        named = dict(nn.ModuleDict({"model": self.model}).named_parameters())
        for name, mine in step.grads.items():
            grad = named[name].grad
            assert grad is not None
            far = float((grad - mine).norm() / mine.norm())
            if not far <= self.how.close:
                raise AssertionError(f"the gradients of {name} are {far:.2g} of their size apart")
        self._since = self._now()  # this was no part of the block


def _score(out: Tensor, y: Tensor) -> Tensor:
    """The log-likelihood of what counts, summed over each row."""
    return -F.cross_entropy(out[:, :-1].transpose(1, 2).float(), y[:, 1:], reduction="none").sum(1)
