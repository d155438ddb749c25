"""Efficiently Robustify: a last layer and three heads, taught by a small net, against noise and other corruptions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from oblivio.audits.probes.features import ridge
from oblivio.claims.problems import digits
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.data import manipulate
from oblivio.data.columns import column
from oblivio.jobs.cache import trained
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.methods.protection.efficient_robustify import augment
from oblivio.modules.features import features
from oblivio.modules.fitted import moments
from oblivio.networks import Architecture

LARGE = Network(Architecture("mlp", (1, 8, 8), 10, {"hidden": [1024, 1024, 128]}))
RECIPE = Recipe(optimiser="adam", lr=1e-3, schedule="constant", epochs=30, batch=64)
TASK = range(7)  # the digits that it is made robust on; the others are the held-out task
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


KINDS = ("noise", "shift", "pepper", "hidden")


def problem(seed: int) -> Problem:
    """A large MLP that knows ten digits; ``retain`` and ``test`` have the first seven, ``other`` and so on the rest."""
    rows, test = digits().train, digits().test
    model = trained(RECIPE, LARGE, rows, seed, task="classification").module
    mine, theirs = (np.isin(column(source, "y"), TASK) for source in (rows, test))
    seen = test.take(theirs)
    broken = corruptions(torch.as_tensor(column(seen, "x")), seed)
    return Problem(model, task="classification", seed=seed, retain=rows.take(mine), test=seen,
                   other=rows.take(~mine), other_test=test.take(~theirs),
                   **{name: manipulate.replaced(seen, x=x.numpy()) for name, x in broken.items()})  # fmt: skip


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
