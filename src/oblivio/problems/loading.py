"""Loading a standard problem: its rows divided, its models trained or taken from the cache."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from oblivio import data
from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.data.dataset import Dataset
from oblivio.data.manipulate import only, replaced
from oblivio.data.splitting import drawing
from oblivio.jobs.network import Network, network
from oblivio.jobs.recipe import Recipe, shipped
from oblivio.jobs.rows import PROXIES, hold_out, stand_ins
from oblivio.problems.case import Case, build, described
from oblivio.problems.pool import Parts, Pool, Trainer, Untrained, check_records, made_records
from oblivio.problems.table import Spec
from oblivio.problems.table import spec as named
from oblivio.sources import Tensors


def load(problem: str | Spec, seed: int = 0, references: int = 3, valid: float = 0.1, *,
         records: Sequence[str] = (), **settings: Any) -> Case:  # fmt: skip
    """Load a standard problem, its models trained now or kept from before.

    Args:
        problem: an id from ``names()``, or a ``Spec`` that was changed.
        seed: of the draws, the original and its references.
        references: how many models that never saw what must go.
        valid: share of the training rows that no model sees; a graph has validation nodes of its own.
        records: what training is to leave behind in ``start.records``, such as ``importance``.
        settings: of the set-up, in place of the problem's own, as ``known=0.1`` for ``digits-poison``.

    Returns:
        the case. Sources of ``start``: forget, retain, train, test, proxy (no labels); valid unless its share is 0;
        ``affected`` where rows were manipulated. Columns ``group`` and ``known`` where they mean something.

    Raises:
        BadInput: an unknown id, setting or record, or a value that does not suit.
    """
    of = named(problem) if isinstance(problem, str) else problem
    of = of.but(settings=settings) if settings else of
    _check_settings(of)
    check_records(records)
    if of.graph:
        return described(importlib.import_module("oblivio.problems.graphs").case(of, seed, references, records), of)
    pool = pool_of(of, seed, valid)
    parts = divide(of, pool)
    trainer = replace(pool.trainer, network=_network(of, pool.dataset, parts.outputs))
    case = build(parts, trainer, seed, references, goal=of.goal, proxy=_proxy(of, parts, seed))
    place, plain = trainer.place(parts.train, seed), only(parts.train)
    case.start.records.update(made_records(records, place, case.start.model, trainer.task, plain, seed))
    return described(case, of)


def outline(problem: str | Spec, seed: int = 0, valid: float = 0.1) -> Case:
    """A standard problem on a network that has learned nothing, without references: for sizes and costs.

    Args and errors are those of ``load``. Set-ups that ask a model which rows to take train one all the same.
    """
    of = named(problem) if isinstance(problem, str) else problem
    if of.graph:
        return described(importlib.import_module("oblivio.problems.graphs").outline(of, seed), of)
    pool = pool_of(of, seed, valid)
    parts = divide(of, pool)
    untrained = Untrained(pool.trainer.recipe, _network(of, pool.dataset, parts.outputs), pool.trainer.task)
    return described(build(parts, untrained, seed, 0, goal=of.goal, proxy=_proxy(of, parts, seed)), of)


def divide(of: Spec, pool: Pool) -> Parts:
    """What the set-up of a problem makes of the rows."""
    return setup(of)(pool, **of.settings)


def _check_settings(of: Spec) -> None:
    for name in of.settings:
        if name not in (known := taken(of)):
            raise BadInput(f"problem {of.name} has no setting {name!r}{nearest(name, known)}")


def taken(of: Spec) -> list[str]:
    """The settings that the set-up of a problem takes."""
    return list(inspect.signature(setup(of)).parameters)[1:]


def setup(of: Spec) -> Callable[..., Parts]:
    """The function that divides the rows of a problem."""
    module, _, function = of.setup.rpartition(".")
    made: Callable[..., Parts] = getattr(importlib.import_module(f"oblivio.problems.{module}"), function)
    return made


# --- rows


def pool_of(of: Spec, seed: int, valid: float) -> Pool:
    """The rows of a problem before anything is done to them, the share ``valid`` held out."""
    dataset = rows_of(of)
    train, held = hold_out(dataset, valid, seed)
    recipe = Recipe(**of.recipe).over(shipped(of.network))
    return Pool(dataset, train, held, seed, Trainer(recipe, _network(of, dataset, None), of.task))


def rows_of(of: Spec) -> Dataset:
    """The data of a problem: its first rows, labelled as the problem has them."""
    dataset = _loaded(of.dataset)
    if of.rows is not None:
        dataset = replace(dataset, train=dataset.train.take(range(of.rows)))
    return relabelled(dataset, of.labels) if of.labels else dataset


@functools.cache
def _loaded(name: str) -> Dataset:
    return data.load(name)


def relabelled(dataset: Dataset, by: str) -> Dataset:
    """The data with column ``by`` as labels; the labels it had are in column ``fine``."""
    field = dataset.fields[by]
    train, test = (replaced(rows, y=column(rows, field.column), fine=column(rows, "y"))
                   for rows in (dataset.train, dataset.test))  # fmt: skip
    classes = tuple(map(str, field.words or ()))
    fields = {**dataset.fields, "class": replace(field, column="y"),
              "fine": replace(dataset.fields["class"], column="fine")}  # fmt: skip
    return replace(dataset, train=train, test=test, classes=classes, outputs=len(classes), fields=fields)


def _network(of: Spec, dataset: Dataset, outputs: int | None) -> Network:
    for_these = replace(dataset, outputs=outputs or dataset.outputs)
    if not of.scaled:
        for_these = replace(for_these, preprocess=None)
    return network(of.network, dict(of.options), for_these)


def _proxy(of: Spec, parts: Parts, seed: int) -> Source:
    """Inputs of another kind, at most ``PROXIES``, their ids apart from all others."""
    if of.proxy:
        return stand_ins(_loaded(of.proxy))
    x = column(parts.retain, "x")
    flat, draws = x.reshape(len(x), -1), drawing("proxy", seed)
    order = np.stack([draws.permutation(len(x)) for _ in range(flat.shape[1])], axis=1)
    return Tensors({"x": np.take_along_axis(flat, order, axis=0).reshape(x.shape)[:PROXIES]})
