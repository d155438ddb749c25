"""sisa: a model a shard, trained slice after slice; a request trains one shard again, from the slice it touches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.learners.shards import Sharded
from oblivio.registry import method
from oblivio.terms import fit


def stage(k: int, epochs: float, lr: float, batch: int) -> Stage:
    """All stages are alike."""
    return Descent(fit("train"), opt=adam(lr), epochs=epochs, batch=batch)


@method(
    paper="Machine Unlearning (Bourtoule et al., 2021)",
    needs=(),
    tasks=("classification", "binary", "multilabel", "regression"),
    cost="a request of one row: (2R + 1) / (3R) of the training of one shard with R slices",
    kind="learner",
    guarantee="exact",
)
def sisa(
    shards: Annotated[int, Field(gt=0)] = 5,
    slices: Annotated[int, Field(gt=0)] = 6,
    epochs: Annotated[float, Field(gt=0)] = 60,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Callable[..., Sharded]:
    """Sharded, isolated, sliced and aggregated training: rows are forgotten by training again what saw them.

    ``sisa(shards=5)(model, task="classification", seed=0)`` is a learner: see ``Sharded``.

    Equation: stage k of a shard trains on its first k slices, from the weights of stage k - 1; the mean of the shards'
    outputs is served. Each of R stages has 2 epochs / (R + 1), so that a shard costs what ``epochs`` on it cost.
    Needs: control of the training; rows with ids, which are kept, and so are the stages.
    Fails: in accuracy where a shard has too few rows to learn from.
    Defaults: Adam and epochs of the small digits problems; shards and slices of s3t's card.
    """
    each = functools.partial(stage, epochs=2 * epochs / (slices + 1), lr=lr, batch=batch)
    return functools.partial(Sharded, stage=each, shards=shards, slices=slices)
