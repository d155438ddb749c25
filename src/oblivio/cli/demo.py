"""``oblivio demo``: the main job from end to end, on data that comes with scikit-learn."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from oblivio.cli import console
from oblivio.cli.forget import doing, report
from oblivio.cli.progress import Line, Look

JOB: dict[str, Any] = {
    "data": "digits", "model": "mlp", "forget": "class=3", "method": "relabel", "references": 2,
}  # fmt: skip
BEFORE = (
    "A small network learns to read handwritten digits. Then all threes must go: not only as an answer, but whatever "
    "the network learned from their rows. What that comes to is told by networks trained in the same way without them."
)
DONE = "the original after forgetting. It should stand where the retrained stand, in every column."
ROWS = {
    "original": "untouched: it knows the threes.",
    "retrained": "never saw a three. These numbers are the aim, not the lowest number on what goes.",
    "output masked": "the original with the answer 3 hidden. Its numbers look as good, and nothing is forgotten: the "
    "weights are those of the original. Accuracy alone cannot tell forgetting from hiding.",
    "weight noise": "the original after a random change of the same size: what mere damage does.",
}


def demo() -> None:
    """Forget a class of handwritten digits, and compare with models that never saw it. Takes less than a minute."""
    import torch

    from oblivio.jobs import forget
    from oblivio.jobs.job import Job

    torch.set_num_threads(1)  # no slower for so small a network, and the same numbers however many there are
    out, job = console.out(), Job.of(**JOB)
    out.print(BEFORE, end="\n\n")
    with tempfile.TemporaryDirectory() as folder, Line() as line:
        outcome = forget.run(job, Path(folder), watch=[Look(line, doing(job))])
    report(outcome)
    own = {
        job.method.name: "the original after forgetting. It should stand where the retrained stand, in every column."
    }
    out.print("\nHow to read the table:")
    out.print(console.pairs({**own, **ROWS}))
    out.print("\nThe same by hand, with the new model kept:")
    out.print("  oblivio forget " + " ".join(f"--{name} {value}" for name, value in JOB.items()), soft_wrap=True)
