"""Probes of the features: what a simple classifier, fitted to unseen rows, can still read off forgotten ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from oblivio.audits.case import Case, Look
from oblivio.audits.probe import DoesNotApply, Value, average, needs_features, probe, share
from oblivio.audits.seen import LAYERED
from oblivio.modules.fitted import moments
from oblivio.sources import as_source
from oblivio.tasks.classification import Binary, Classification, Multilabel

NEIGHBOURS = 5


@probe("gone", "read off the features by a linear probe, forgotten rows", "share", about="features",
       needs=("forget", "test"))  # fmt: skip
def linear_probe(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The share of forgotten rows that a ridge regression from the features names rightly, fitted to unseen test rows.

    For a class that goes it asks whether the features still single it out; for rows of classes that stay, whether
    theirs are closer to the labels than those of rows never seen. It is fitted to one-hot classes, or to labels -1
    and 1; of a regression the figure is the share of the targets' variance that is explained, 0 where that is none.
    The strength of the ridge is the number of features, which have deviation 1: the best for weights of which all
    together are expected to explain as much as the noise.
    """
    seen, asked = needs_features(look, "test"), needs_features(look, "forget")
    mean, spread = moments([seen.T])
    x, z = (((features - mean) / spread).double() for features in (seen, asked))
    y = unseen_answers(case)
    weights = ridge(x, y - y.mean(0), x.shape[1])
    return scored(case, sampled(case, "forget"), z @ weights + y.mean(0))


@probe("gone", "read off the 5 nearest features, forgotten rows", "share", about="features", needs=("forget", "test"))
def nearest_probe(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The same by the mean answer of the 5 unseen rows whose features have the greatest cosine (the card uuef).

    At most 1,024 rows of each source are taken.
    """
    return nearest(case, look, "forget")


def nearest(case: Case, look: Look, on: str) -> Value:
    """What the nearest unseen rows answer for the rows of a source."""
    seen, asked = (F.normalize(thinned(needs_features(look, source)), dim=1) for source in ("test", on))
    beside = (asked @ seen.T).topk(min(NEIGHBOURS, len(seen))).indices
    return scored(case, thinned(sampled(case, on)), thinned(unseen_answers(case))[beside].mean(1))


def thinned(rows: Tensor) -> Tensor:
    """At most 1,024 of the sampled rows, evenly taken: those for which what every layer gave is kept."""
    return rows[:: -(-len(rows) // LAYERED) or 1]


def sampled(case: Case, on: str) -> Tensor:
    """Targets of the rows of a source whose features are known."""
    return case.targets[on][case.sample[on]]


def unseen_answers(case: Case) -> Tensor:
    """Targets of the sampled test rows as columns that a line can be fitted to, shape (m, k), float64."""
    y, task = sampled(case, "test"), case.problem.task.name
    if not len(case.unseen):
        raise DoesNotApply("no test row is of a class that forgotten rows have")
    if isinstance(case.problem.task, Classification):
        return F.one_hot(y, case.outputs).double()
    if isinstance(case.problem.task, (Binary, Multilabel)):
        return (2 * y.double() - 1).reshape(len(y), -1)
    if task == "regression":
        return y.double().reshape(len(y), -1)
    raise DoesNotApply(f"a {task} has no targets that a line could be fitted to")


def scored(case: Case, y: Tensor, out: Tensor) -> Value:
    """The share of rows with targets ``y`` for which ``out``, in the form of ``unseen_answers``, is right."""
    if case.problem.task.name == "regression":
        error = (out - y.double().reshape(len(y), -1)).square() / unseen_answers(case).var(0).clamp_min(1e-12)
        explained = average(1 - error.mean(1))
        return replace(explained, value=max(explained.value, 0.0))
    return share(case.problem.task.quality(out, as_source({"y": y}).batch(torch.arange(len(y)))))


def ridge(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """Weights (d, k) that minimise ``|x w - y|^2 + strength |w|^2``, solved on the shorter side of ``x`` (n, d)."""
    within = strength * torch.eye(min(x.shape), dtype=x.dtype)
    if x.shape[0] < x.shape[1]:
        return x.T @ torch.linalg.solve(x @ x.T + within, y)
    return torch.linalg.solve(x.T @ x + within, x.T @ y)
