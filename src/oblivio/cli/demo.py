"""``oblivio demo``: the main job from end to end, on data that comes with scikit-learn."""

from __future__ import annotations

import tempfile
from pathlib import Path

from oblivio.cli import console
from oblivio.cli.forget import doing, report
from oblivio.cli.progress import Line, Look

BEFORE = """\
A small network learns to read handwritten digits. Then every three must go: not only the answer, but what the network
learned from these rows. What that comes to is shown by networks that were trained in the same way without the threes.
"""
AFTER = """
How to read it, column by column:
  original       knows the threes; nothing was forgotten yet.
  retrained      never saw a three. This is the aim: not the lowest number on the threes, but the same numbers.
  {method:<13}  has forgotten where it stands among the retrained, also on what it was to keep.
  output masked  the original with one output hidden. Its numbers look as good, yet its weights are those of the
                 original: accuracy alone cannot tell forgetting from hiding.
  weight noise   the original after a random change of the same size: what mere damage looks like.

The same on your own: {command}
"""
METHOD, ROWS, REFERENCES = "salun", "class=3", 2


def demo() -> None:
    """Forget a class of handwritten digits and compare with models that never saw it. Takes less than a minute."""
    import torch

    from oblivio.jobs import forget
    from oblivio.jobs.job import Job

    torch.set_num_threads(1)  # no slower for so small a network, and the same numbers however many there are
    out = console.out()
    out.print(BEFORE)
    job = Job.of(data="digits", model="mlp", forget=ROWS, method=METHOD, references=REFERENCES)
    with tempfile.TemporaryDirectory() as folder, Line() as line:
        outcome = forget.run(job, Path(folder), watch=[Look(line, doing(job))])
    report(outcome)
    command = f"oblivio forget --data digits --model mlp --forget {ROWS} --method {METHOD} --references {REFERENCES}"
    out.print(AFTER.format(method=METHOD, command=command))
