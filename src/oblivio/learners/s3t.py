"""s3t: each slice trains layers of its own, top first, in several orders; a deletion switches stages off."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import nn

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage
from oblivio.learners._orders import matched, rotations
from oblivio.learners.shards import Retrain, Sharded
from oblivio.modules.heads import last_linear
from oblivio.registry import method
from oblivio.terms import fit


def stage(k: int, where: tuple[str, ...], epochs: float, lr: float, batch: int) -> Stage:
    """Trains the k-th group of layers from the top, and the head."""
    return Descent(fit("train"), where=where[k], opt=adamw(lr), epochs=epochs, batch=batch)


def groups(model: nn.Module, number: int, layers: tuple[str, ...], adapters: str) -> tuple[str, ...]:
    """Patterns of the weights that each stage moves: so many groups of layers, the top one first, each with the head.

    ``layers``: by dotted name, from the input on; none: the parts with weights of the longest sequence in the model.
    Raises BadInput where there are fewer than ``number``.
    """
    head = last_linear(model)
    found = [name for name in layers or _longest(model) if name != head]
    if len(found) < number:
        raise BadInput(f"s3t: {number} slices need as many layers below the head; there are {len(found)}: {found}")
    parts = np.array_split(found[::-1], number)
    return tuple(" ".join([*(f"model.{name}.{adapters}" for name in part), f"model.{head}.*"]) for part in parts)


def _longest(model: nn.Module) -> list[str]:
    sequences = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Sequential, nn.ModuleList))]
    parts = [[f"{n}.{c}".lstrip(".") for c, m in s.named_children() if list(m.parameters())] for n, s in sequences]
    return max(parts, key=len, default=[])


@method(
    paper="Towards Scalable Exact Machine Unlearning Using Parameter-Efficient Fine-Tuning (2025)",
    needs=(),
    tasks=("classification", "binary", "multilabel", "regression"),
    cost="a training: budget times that of sisa, through fewer weights; a request trains nothing while a stage is left",
    kind="learner",
    guarantee="exact",
)
def s3t(
    shards: Annotated[int, Field(gt=0)] = 5,
    slices: Annotated[int, Field(gt=0)] = 6,
    budget: Annotated[int, Field(gt=0)] = 4,
    rates: tuple[float, ...] | None = None,
    layers: tuple[str, ...] = (),
    adapters: str = "*",
    epochs: Annotated[float, Field(gt=0)] = 15,
    lr: Annotated[float, Field(gt=0)] = 2e-4,
    batch: Annotated[int, Field(gt=0)] = 64,
    retrain: Retrain = "exhausted",
) -> Callable[..., Sharded]:
    """Sequences of slices that are deletion-aware: a deleted row costs the stages from its slice on, and no training.

    ``s3t(budget=4)(model, task="classification", seed=0)`` is a learner: see ``Sharded``. ``budget`` orders of the
    slices are trained in each shard: rotations, or by ``rates``, the share of deletions that falls on each slice.
    ``adapters`` names the weights of a layer that move, such as ``*lora*``.

    Equation: stage k trains layers D - kn to D - (k + 1)n + 1 and the head on the first k + 1 slices of its order;
    after a deletion at place p an order serves stage p - 1, and of each shard the longest order is served.
    Needs: a model that was trained on other rows, with a sequence of as many layers as slices; rows with ids.
    Fails: where the layers at the start are not worth keeping: stages move few of them.
    Defaults: the card's, for adapters on a pretrained transformer.
    """
    orders = rotations(slices, budget) if rates is None else matched(rates, budget)

    def make(model: nn.Module, **settings: Any) -> Sharded:
        where = groups(model, slices, layers, adapters)
        each = functools.partial(stage, where=where, epochs=epochs, lr=lr, batch=batch)
        settings = {"shards": shards, "slices": slices, "orders": orders, "retrain": retrain, **settings}
        return Sharded(model, each, **settings)

    return make
