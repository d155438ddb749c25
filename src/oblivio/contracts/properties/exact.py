"""What makes a run exact: seeds, plans that are values, resuming, saving."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from oblivio import artefact
from oblivio.contracts.case import Case, Planted, below, bits, differing, edits, failing, names, prop, same_bits
from oblivio.core.descent import Descent
from oblivio.core.plan import Stage
from oblivio.core.run import Run
from oblivio.core.step import Step


@prop
def seeds(case: Case) -> Iterator[str]:
    """The same seed gives the same bits whatever others draw; another seed gives others, where batches are drawn."""
    expected = case.bits
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002 - the states that a method must not read
    yield from (f"the same seed gave another {what}" for what in names(differing(expected, bits(case.run()))))
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    random.setstate(state[2])
    drawn = [descent for descent in below(case.plan(), Descent) if descent.batch is not None]
    if drawn and not differing(expected, bits(case.run(problem=case.problem(seed=1)))):
        yield "another seed gave the same bits"


@prop
def value(case: Case) -> Iterator[str]:
    """A plan is a value: it is printed and run a second time as the first."""
    plan = case.plan()
    printed = repr(plan)
    first, second = bits(case.run(plan)), bits(case.run(plan))
    yield from (f"the second run of the same plan gave another {what}" for what in names(differing(first, second)))
    if repr(plan) != printed:
        yield f"{printed} is printed as {plan!r} after a run"


@prop
def resumes(case: Case) -> Iterator[str]:
    """A run killed in the middle, at its last step, or in the last pass of an edit, equals one that was not killed."""
    steps = case.finished.steps
    for at in sorted({steps // 2 | 1, steps}) if steps else []:
        yield from _resumed(case, f"step {at} of {steps}", watch=at)
    if edits(case.plan()):
        yield from _resumed(case, "its last pass", forward=case.forwards - 1)


def _resumed(case: Case, when: str, watch: int | None = None, forward: int | None = None) -> Iterator[str]:
    def kill(run: Run, stage: Stage, step: Step) -> None:
        if run.steps == watch:
            run.checkpoint()
            raise Planted

    with tempfile.TemporaryDirectory() as folder:
        problem = case.problem()
        if forward is not None:
            failing(problem, forward)
        try:
            Run(case.plan(), problem, Path(folder), every=1e9, watch=[kill]).go()
        except Planted:
            after = bits(Run(case.plan(), case.problem(), Path(folder)).resume().go())
            yield from (f"resumed after {when}: another {what}" for what in names(differing(case.bits, after)))


@prop
def saved(case: Case) -> Iterator[str]:
    """Saved and loaded, the model has the same outputs."""
    with tempfile.TemporaryDirectory() as name:
        folder, loaded = Path(name) / "model", case.problem()
        artefact.save(folder, case.outcome.model, task=case.tiny.kind, journal=case.outcome.journal)
        loaded.nets["model"] = artefact.read(folder, base=loaded.model).module
        if not same_bits(loaded.predict("test"), case.outcome.predict("test")):
            yield "the loaded model has other outputs"
