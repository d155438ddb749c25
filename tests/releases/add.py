"""Make the folder of this release: ``python tests/releases/add.py``, once, when the release is made."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from torch import Tensor

import oblivio as ob
from oblivio.core.files import write_json
from oblivio.jobs import forget
from oblivio.jobs.job import Job

HERE = Path(__file__).resolve().parent


def rows() -> Tensor:
    """Eight images, made of nothing that could change."""
    return (torch.arange(8 * 64) * 7 % 17 / 16).view(8, 1, 8, 8)


def add() -> None:
    """A small run as this release writes it, and what its model gives."""
    os.chdir(HERE)  # so that no folder of this machine is written down
    job = Job.of(
        data="digits", model={"name": "mlp", "options": {"hidden": [8]}}, forget="class=3", method="salun", references=1
    )
    forget.run(job, ob.__version__)
    write_json(Path(ob.__version__) / "outputs.json", ob.load(ob.__version__)(rows()).tolist())


if __name__ == "__main__":
    add()
