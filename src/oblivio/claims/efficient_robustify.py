"""Efficiently Robustify: a last layer and three heads, taught by a small net, against noise and other corruptions."""

from __future__ import annotations

from functools import cache, partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio import methods, terms
from oblivio.audits.probes.features import ridge
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import digits, nothing
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.core.where import Where
from oblivio.data import manipulate
from oblivio.data.columns import column
from oblivio.jobs.cache import trained
from oblivio.jobs.method import apply
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.methods.protection.efficient_robustify import tail, withstand
from oblivio.modules.features import features
from oblivio.modules.fitted import moments
from oblivio.networks import Architecture
from oblivio.sources.augment import augment

LARGE = Network(Architecture("mlp", (1, 8, 8), 10, {"hidden": [512, 512, 128]}))
RECIPE = Recipe(optimiser="adam", lr=1e-3, schedule="constant", epochs=30, batch=64)
TASK = range(7)  # the digits that it is made robust on; the others are the held-out task
KINDS = ("noise", "shift", "pepper", "hidden")
EPOCHS = 60  # of the method, and of tuning without a teacher
FEW, DRAWS = 5, 20  # rows of each held-out digit that a probe is fitted to, and how many such draws are averaged


def corruptions(x: Tensor, seed: int) -> dict[str, Tensor]:
    """Images (n, 1, 8, 8) with noise or shifted, as the teacher learns, and with what it never saw."""
    rng = generator(seed, "corrupted")
    still = torch.zeros(())
    drawn = torch.rand(x.shape, generator=rng)
    corner = torch.randint(6, (2, len(x), 1), generator=rng)
    down, right = ((torch.arange(8) >= c) & (torch.arange(8) < c + 3) for c in corner)
    return {
        "noise": x + 0.3 * torch.randn(x.shape, generator=rng),
        "shift": augment(x, 0.0, 1, rng),
        "pepper": torch.where(drawn < 0.1, still, torch.where(drawn > 0.9, still + 1, x)),
        "hidden": x * ~(down[:, :, None] & right[:, None, :])[:, None],
    }


def problem(seed: int) -> Problem:
    """A large MLP that knows ten digits; ``retain`` and ``test`` have the first seven, ``other`` and so on the rest."""
    rows, test = digits().train, digits().test
    model = trained(RECIPE, LARGE, rows, seed, task="classification").module
    mine, theirs = (np.isin(column(source, "y"), TASK) for source in (rows, test))
    seen = test.take(theirs)
    broken = corruptions(torch.as_tensor(column(seen, "x")), seed)
    sources: dict[str, Any] = {name: manipulate.replaced(seen, x=x.numpy()) for name, x in broken.items()}
    return Problem(model, task="classification", seed=seed, retain=rows.take(mine), test=seen,
                   other=rows.take(~mine), other_test=test.take(~theirs),
                   **sources)  # fmt: skip


def probed(of: Problem) -> float:
    """Accuracy of a linear probe on test rows of the held-out digits, fitted to a few rows of each by ridge regression.

    The mean over several draws of the few.
    """
    known, asked = features(of, "other"), features(of, "other_test")
    y, truth = (torch.as_tensor(column(of.source(on), "y")).long() for on in ("other", "other_test"))
    mean, spread = moments([known.T])
    known, asked = (((f - mean) / spread).double() for f in (known, asked))
    right = []
    for draw in range(DRAWS):
        order = torch.randperm(len(y), generator=generator(of.seed, "few", draw))
        few = torch.cat([order[y[order] == c][:FEW] for c in y.unique()])
        target = nn.functional.one_hot(y[few], 10).double()
        answer = asked @ ridge(known[few], target - target.mean(0), known.shape[1]) + target.mean(0)
        right.append((answer.argmax(1) == truth).double().mean())
    return float(torch.stack(right).mean())


def tuned(where: Where | str | None = None, epochs: int = EPOCHS, **settings: Any) -> Stage:
    """Training on clean and augmented rows without a teacher: the last layer and the head, or ``where``."""
    loss = terms.fit("retain") + withstand("retain", noise=0.5, shift=1)
    return Descent(loss, where=where or tail(1), opt=adam(1e-3), epochs=epochs, batch=64)


def looks(of: Problem, name: str) -> Figures:
    """Accuracy on clean test rows, the mean over four corruptions, of a probe, and on the held-out digits."""
    corrupted = {kind: of.score(kind) for kind in KINDS}
    seen = {"corrupted": fmean(corrupted.values()), "clean": of.score("test"), "probe": probed(of),
            "zero_shot": of.score("other_test"), **corrupted}  # fmt: skip
    return {f"{name}_{what}": value for what, value in seen.items()}


@cache
def baselines(seed: int, epochs: int) -> Figures:
    """The model as it was, and tuned without a teacher: its last layer and head, or all of it."""
    given = problem(seed)
    plans = {"before": nothing(), "last": tuned(epochs=epochs), "full": tuned("model.*", epochs)}
    return {k: v for name, plan in plans.items() for k, v in looks(apply(plan, given)[0], name).items()}


def measure(method: Method, seed: int, epochs: int = EPOCHS) -> Figures:
    """Of the model after the method, as it was (before), and trained without a teacher in part (last) or all (full)."""
    done, _ = apply(method(epochs=epochs), problem(seed))
    return looks(done, "robust") | baselines(seed, epochs)


CLAIM = Claim(
    says="Tuned in its last layer and three heads under a small robust teacher, a large model withstands corruption "
    "far better than before and no worse than one tuned without the teacher, loses no clean accuracy, and keeps what "
    "it knew of other digits: a probe reads them off its features better than after training all of it on the same "
    "rows, and its answers name them (zero_shot), where without the clean head they never do. Also "
    "shown: training all of it (full) withstands more.",
    trained="digits, all ten, MLP 64-512-512-128-10; made robust on 0 to 6, in a fifth of its weights; 7, 8 and 9 are "
    "the held-out task. Teacher MLP 64-128-128-10. Corrupted: noise, shift, and unseen, pepper and a hidden square",
    method=methods.efficient_robustify,
    controls={
        "no change": nothing,
        "the last layer and head tuned without a teacher": tuned,
    },
    measure=measure,
    holds=(
        "robust_corrupted >= before_corrupted + 0.05",
        "robust_corrupted >= last_corrupted - 0.01",
        "robust_clean >= before_clean - 0.02",
        "robust_probe >= full_probe + 0.01",
        "robust_zero_shot >= last_zero_shot + 0.2",
    ),
    changed=(
        Changed("tuned_share", "5 to 10 percent", "19 percent",
                "on seeds 100 to 102 a last layer of half the width, 10 percent, ended 0.018 below tuning without the "
                "teacher, at disagree 2"),
        Changed("clearly above, not below, drops less", "to be set", "0.05 above, at most 0.01 below, 0.01 less",
                "set after a first run on seeds 100 to 102, as the card asks"),
        Changed("zero_shot", "none", "0.2 above tuning without a teacher",
                "without it, that tuning would meet the claim as well; the paper claims that zero-shot ability stays"),
    ),
    fast=partial(measure, epochs=10),
)  # fmt: skip
