"""What a child does: each is called with the trial's folder and returns an exit code."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import torch

from oblivio import artefact
from oblivio.cli import main
from oblivio.cli.codes import FINISHED, INCONCLUSIVE, REJECTED
from oblivio.core import files, opt, run
from oblivio.networks import Architecture

FIRST = """
data: digits
model: {name: mlp, options: {hidden: [2]}}
recipe: {epochs: 0.5}
forget: class=3
method: {name: npo, settings: {epochs: 1}}
references: 1
audit: {leave_out: [mia_confidence, relearning]}
"""
EVERY = 30  # seconds between checkpoints, as shipped


def forget(folder: Path, steps: int, plant: str | None = None) -> int:
    """The job in ``job.yaml``, from its beginning."""
    prepare(steps, plant)
    return ended(main(["forget", str(folder / "job.yaml"), "--out", str(folder / "out")]))


def resume(folder: Path, steps: int, plant: str | None = None) -> int:
    """The rest of it."""
    prepare(steps, plant)
    return ended(main(["resume", str(folder / "out")]))


def ended(code: int) -> int:
    """Any verdict is an end as it must be."""
    return FINISHED if code in (REJECTED, INCONCLUSIVE) else code


def clear(folder: Path) -> int:
    """Remove all kept models."""
    return main(["cache", "clear"])


LINEAR = Architecture("mlp", (3,), 2, {"hidden": []})


def linear() -> torch.nn.Module:
    """Always the same one."""
    torch.manual_seed(0)
    return LINEAR.build()


def save(folder: Path) -> int:
    """A saved model."""
    artefact.save(folder / "model", linear(), task="classification", architecture=LINEAR)
    return 0


# --- what is changed for a trial


def prepare(steps: int, plant: str | None) -> None:
    """A clock that moves when it is read, so that every run of a job has its checkpoints after the same steps."""
    ticks = itertools.count()
    run.time = SimpleNamespace(monotonic=lambda: next(ticks) * (EVERY + 1) / steps)  # type: ignore[assignment]
    if plant is not None:
        PLANTS[plant]()


def in_place() -> None:
    """A fault: files are written under the name they are read by."""

    def write_bytes(path: Path, data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data)

    files.write_bytes = write_bytes
    from oblivio.jobs import folder

    folder.write_bytes = write_bytes  # type: ignore[attr-defined]


def unsynced() -> None:
    """A fault: nothing is brought to the disk before it gets its name."""
    os.fsync = lambda handle: None


def forgetful() -> None:
    """A fault: the moments of optimisers do not come back from a checkpoint."""

    opt.Opt.load = lambda self, state: None  # type: ignore[method-assign]


PLANTS = {"in place": in_place, "unsynced": unsynced, "forgetful": forgetful}
