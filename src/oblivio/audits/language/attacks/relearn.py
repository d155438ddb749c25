"""Relearning: how fast a few of the forgotten texts, or others that say nothing of them, bring the rest back."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from oblivio.audits.language.attacks.rows import beneath, parted
from oblivio.audits.language.case import TextCase, TextLook
from oblivio.audits.language.memorisation import probability
from oblivio.audits.language.probes import probe
from oblivio.audits.language.responses import respond
from oblivio.audits.probe import Value, share
from oblivio.core.descent import Descent
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import generator
from oblivio.core.step import Step
from oblivio.how import clip
from oblivio.sources.tokens import Tokens
from oblivio.terms import fit

FEW, LEAST = 20, 6  # forgotten texts to learn from, a third of them at most; and how many there must be
STEPS = (0, 5, 10, 20, 40)  # when the others are asked
RATE = 0.02  # of AdamW, by the width of the model: 3e-4 where it is 64, 5e-6 where it is 4096
BATCH = 12


@probe("gone", "relearned from a few forgotten texts, on the others", "task", about="features", attack="relearn")
def relearning(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The probability of the other forgotten answers, mean over steps of training on a few; what is wrapped comes off.

    A model that never learned them learns them more slowly: from a few it can learn the form alone.
    """
    few, held = parted(case, FEW, LEAST, "relearn")
    return _course(case, look, few, held)


@probe("gone", "come back by training on retained texts", "task", about="features", attack="relearn",
       needs=("forget", "retain"))  # fmt: skip
def relearning_unrelated(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The same where the training texts are retained ones, which say nothing of those that are gone."""
    retain = case.sheets["retain"]
    order = torch.randperm(len(retain), generator=generator(case.problem.seed, "relearn", "retain"))
    return _course(case, look, retain.take(order[: STEPS[-1] * BATCH]), case.sheets["forget"])


def _course(case: TextCase, look: TextLook, train: Tokens, held: Tokens) -> Value:
    """The mean over steps of the probability on ``held``, with its course, while a copy of the model trains."""
    model = copy.deepcopy(beneath(look.model))
    found: dict[int, torch.Tensor] = {}

    def ask(run: Run | None, stage: Stage | None, step: Step | None) -> None:
        if (at := 0 if run is None else run.steps) in STEPS:
            found[at] = probability(respond(model, held, eos=case.eos, task=case.problem.task))

    ask(None, None, None)
    there = Problem(model, task=case.problem.task, seed=case.problem.seed, train=train)
    width = there.model.get_input_embeddings().embedding_dim  # type: ignore[operator]
    plan = Descent(fit("train"), how=clip(1), opt=adamw(RATE / width, wd=0), steps=STEPS[-1], batch=BATCH)
    Run(plan, there, watch=[ask]).go()
    value = share(torch.stack(list(found.values())).mean(0))
    curve = [(at, float(each.mean())) for at, each in found.items()]
    return Value(value.value, value.low, value.high, value.rows, curve, note=_recovery(curve))


def _recovery(curve: Sequence[tuple[int, float]]) -> str:
    """After how many steps half of the answers' probability is back."""
    back = next((at for at, value in curve if value >= 0.5), None)
    return "half is not back after the last step" if back is None else f"half is back after {back} steps"
