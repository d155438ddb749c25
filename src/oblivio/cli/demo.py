"""``oblivio demo``: the main job from end to end, and a fraud that its audit sees through."""

from __future__ import annotations

import dataclasses
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblivio.cli import console
from oblivio.cli.forget import doing
from oblivio.cli.progress import Line, Look
from oblivio.cli.work import show

if TYPE_CHECKING:
    from oblivio.jobs.outcome import Outcome

JOB: dict[str, Any] = {
    "data": "digits", "model": "mlp", "forget": "class=3", "references": 4,
    "recipe": {"optimiser": "sgd", "lr": 0.05, "wd": 5e-4, "epochs": 20},
    "method": {"name": "retrain", "settings": {"lr": 0.05, "wd": 5e-4, "epochs": 20}},
}  # fmt: skip
BEFORE = (
    "A small network learns to read handwritten digits. Then all threes must go: not only as an answer, but whatever "
    "the network learned from their rows. What that comes to is told by networks trained in the same way without them. "
    "The surest method first: train again without the threes."
)
FRAUD = (
    "\nThe same request, served in the cheapest way: the answer 3 is hidden, and the weights stay as they are. "
    "Accuracy cannot tell that from forgetting. The audit can:\n"
)


def demo() -> None:
    """Forget a class of handwritten digits, and judge that; then judge a fraud. Takes less than a minute."""
    import torch
    import yaml

    from oblivio.jobs import forget
    from oblivio.jobs.job import Job

    torch.set_num_threads(1)  # no slower for so small a network, and the same numbers however many there are
    out, job = console.out(), Job.of(**JOB)
    out.print(BEFORE, end="\n\n")
    with tempfile.TemporaryDirectory() as folder, Line() as line:
        outcome = forget.run(job, Path(folder), watch=[Look(line, doing(job))])
    show(outcome.report)
    out.print(FRAUD)
    show(hidden(outcome).report)
    out.print("\nThe same by hand, with the new model and a report to read in a browser: oblivio forget job.yaml, with")
    out.print(textwrap.indent(yaml.safe_dump(JOB, sort_keys=False), "  "), soft_wrap=True)


def hidden(outcome: Outcome) -> Outcome:
    """The same request, served by hiding the classes that were to go."""
    from oblivio.audits.subjects import mask
    from oblivio.core.plan import Plan
    from oblivio.jobs.method import Chosen
    from oblivio.jobs.serving import forgotten_classes

    changed = outcome.original.copy()
    changed.nets.update(mask(dict(changed.nets.items()), forgotten_classes(outcome.original)))
    return dataclasses.replace(
        outcome, problem=changed, chosen=Chosen(Plan([]), "answer hidden", {}), cost={}, notes=()
    )
