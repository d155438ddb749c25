"""Small problems for the tests of the core, in numbers that can be worked out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.core.where import Names


class Double(nn.Module):
    """A net in float64 behind inputs in float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double())


def rows(n: int, *shape: int, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=g), torch.randint(classes, (n,), generator=g)


def mlp(inputs: int = 6, hidden: int = 5, outputs: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def problem(build: Callable[[], nn.Module] = mlp, n: int = 12, m: int = 30, *, seed: int = 0, **given: Any) -> Problem:
    """``n`` rows to forget and ``m`` to keep, of six columns and four classes; always the same weights."""
    torch.manual_seed(0)
    return Problem(build(), seed=seed, **{"forget": rows(n, 6), "retain": rows(m, 6, seed=1), **given})


def step(of: Problem, pattern: str = "model.*", **settings: Any) -> Step:
    """The whole of every source in one batch, in evaluation mode unless told otherwise."""
    return Step(of, "here", Names(pattern).select(of), **{"batch": None, "train": False, **settings})


def flat(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([v.flatten() for _, v in sorted(values.items())])


def state(of: Problem) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in [*of.nets.named_parameters(), *of.nets.named_buffers()]}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@contextmanager
def moved(of: Problem, by: dict[str, Tensor], scale: float) -> Iterator[None]:
    """Weights moved by ``scale * by``, and back to the same bits."""
    before = {n: of.weights()[n].detach().clone() for n in by}
    _put(of, {n: value + scale * by[n] for n, value in before.items()})
    yield
    _put(of, before)


@torch.no_grad()
def _put(of: Problem, values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        of.weights()[name].copy_(value)


class Killed(Exception):
    """The end of a process, as a test can make it."""


def killed(plan: Stage, of: Problem, at: int, folder: Path) -> None:
    """Run up to step ``at`` with a checkpoint there, and no further."""

    def watch(run: Run, *_: Any) -> None:
        if run.steps == at:
            run.checkpoint()
            raise Killed

    try:
        Run(plan, of, folder, every=1e9, watch=[watch]).go()
    except Killed:
        return
    raise AssertionError(f"the run has no step {at}")


def resumes_everywhere(plan: Callable[[], Stage], make: Callable[[], Problem], folder: Path) -> Problem:
    """Kill at every step in turn; each resumed run must end in the same bits. Returns the uninterrupted one."""
    whole = Run(plan(), make())
    whole.go()
    for at in range(1, whole.steps + 1):
        killed(plan(), make(), at, folder / str(at))
        again = make()
        Run(plan(), again, folder / str(at)).resume().go()
        assert same(state(again), state(whole.problem)), f"killed at step {at} of {whole.steps}"
        assert again.passes == whole.problem.passes
    return whole.problem


def found(report: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Whether a figure is there, and if not, why."""
    figure = next(each for each in report["figures"] if each["id"] == name)
    return figure["state"], figure["why"]
