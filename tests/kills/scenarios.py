"""What a child does: each is called with the trial's folder and returns an exit code."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import torch

from oblivio import artefact
from oblivio.cli import main
from oblivio.core import run
from oblivio.networks import Architecture

LINEAR = Architecture("mlp", (3,), 2, {"hidden": []})
FIRST = """
data: digits
model: {name: mlp, options: {hidden: [2]}}
recipe: {epochs: 0.5}
forget: class=3
method: {name: npo, settings: {epochs: 1}}
references: 1
"""
EVERY = 30  # seconds between checkpoints, as shipped


def forget(folder: Path, steps: int) -> int:
    """The job in ``job.yaml``, from its beginning."""
    checkpoint_every(steps)
    return main(["forget", str(folder / "job.yaml"), "--out", str(folder / "out")])


def resume(folder: Path, steps: int) -> int:
    """The rest of it."""
    checkpoint_every(steps)
    return main(["resume", str(folder / "out")])


def clear(folder: Path) -> int:
    """Remove all kept models."""
    return main(["cache", "clear"])


def save(folder: Path) -> int:
    """A saved model."""
    torch.manual_seed(0)
    artefact.save(folder / "model", LINEAR.build(), task="classification", architecture=LINEAR)
    return 0


def checkpoint_every(steps: int) -> None:
    """A clock that moves when it is read, so that every run of a job has its checkpoints at the same steps."""
    ticks = itertools.count()
    run.time = SimpleNamespace(monotonic=lambda: next(ticks) * (EVERY + 1) / steps)  # type: ignore[assignment]
