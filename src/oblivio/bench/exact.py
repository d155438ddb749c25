"""What a request costs a head in closed form, against fitting it again."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from oblivio.bench.row import Row
from oblivio.bench.timing import REPEATS, by_turns, ratios
from oblivio.learners._head import Head
from oblivio.learners.ridge import BLOCK, Ridge

ROWS, FEATURES, CLASSES, ASKED = 60_000, 512, 10, 20
BLOCKS = 1  # a fit takes seconds


def rows(repeats: int = REPEATS) -> list[Row]:
    """A request of 20 rows to ``ridge``, against a ridge head fitted on 60,000 rows of 512 features that are there."""
    x, y, ids = torch.randn(ROWS, FEATURES), torch.randint(CLASSES, (ROWS,)), np.arange(ROWS)
    learner = Ridge(nn.Identity(), keep=False)
    learner.learn((x, y, ids))
    some = (x[:ASKED], y[:ASKED], ids[:ASKED])
    features, targets = x.double().split(BLOCK), F.one_hot(y, CLASSES).double().split(BLOCK)

    def request() -> None:
        learner.forget(some[2], some)
        learner.learn(some)

    def fit() -> None:
        Head.empty(FEATURES, CLASSES, 1.0).resolved(zip(features, targets, strict=True), 1)

    times = by_turns({"request": request, "fit": fit}, repeats, BLOCKS)
    each = [seconds / 2 for seconds in times["request"]]
    note = f"{ASKED} rows of {ROWS:,}, {FEATURES} features, {CLASSES} classes, float64; half of forgetting them and "
    note += f"learning them again; a fit takes {min(times['fit']):,.2f} s"
    return [Row("ridge: a request over a fit", 1 / 50, ratios(each, times["fit"]), note)]
