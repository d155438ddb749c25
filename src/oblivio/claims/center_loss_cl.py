"""Centre loss: beside replay, features that stay at the centres of the first domain keep more of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from oblivio import data, methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.continual import network
from oblivio.core.plan import Stage
from oblivio.core.source import Source
from oblivio.data.history import History
from oblivio.data.streams.experience import Stream
from oblivio.learners.learner import Learner
from oblivio.modules.features import features

SETTINGS = {"lr": 0.05, "batch": 10, "epochs": 10}
Piece = Callable[[Stage], Stage]


@cache
def altered_digits() -> Stream:
    """Ten classes as they are, mirrored, turned by 90 degrees, and inverted."""
    return data.domains("digits")


def measure(method: Method, seed: int) -> Figures:
    """Accuracy and forgetting with and without the piece on replay; drift of the first domain's features without."""
    piece, replay = method(lam=0.1), methods.er(buffer=50, replay=10, **SETTINGS)
    bare = methods.naive(**SETTINGS)
    er, both, alone, pulled = (learned(plan, seed) for plan in (replay, piece(replay), bare, piece(bare)))
    return {
        "er": er.acc, "er_centre": both.acc, "forgetting_er": er.forgetting, "forgetting_er_centre": both.forgetting,
        "naive": alone.acc, "centre": pulled.acc, "drift_naive": alone.drift, "drift_centre": pulled.drift,
        "drift_in_spreads_naive": alone.drift / alone.spread, "drift_in_spreads_centre": pulled.drift / pulled.spread,
    }  # fmt: skip


class Learned(NamedTuple):
    """After the last domain.

    ``drift`` is how far test features of the first one are, on average, from the class means that it left, ``spread``
    how far these were apart.
    """

    acc: float
    forgetting: float
    drift: float
    spread: float


_known: dict[tuple[str, int], Learned] = {}


def learned(plan: Stage, seed: int) -> Learned:
    """The stream learned by a plan; once a process, the plan known again by what it prints."""
    if (repr(plan), seed) not in _known:
        stream = altered_digits()
        learner, history = Learner(network(stream, seed), plan, "classification", seed), History(stream.test)
        for experience in stream.train:
            history.record(learner.learn(experience))
            if learner.turn == 1:
                centres = means(learner, experience.rows)
        test, figures = stream.test[0].rows, history.metrics()
        away = (features(learner.problem, test) - centres[labels(test)]).norm(dim=1)
        drift, spread = float(away.mean()), float(torch.pdist(centres).mean())
        _known[repr(plan), seed] = Learned(figures["acc"], figures["fm"], drift, spread)
    return _known[repr(plan), seed]


def means(learner: Learner, rows: Source) -> Tensor:
    """The mean features of every class."""
    own = F.one_hot(labels(rows)).float()
    return own.T @ features(learner.problem, rows) / own.sum(0)[:, None]


def labels(rows: Source) -> Tensor:
    """Of all rows."""
    return torch.cat([batch["y"] for batch in rows.batches(4096)]).long()


def nothing(lam: float) -> Piece:
    """A plan stays what it is."""
    return lambda plan: plan


CLAIM = Claim(
    says="On digits as they are, mirrored, turned and inverted, replay of 50 rows forgets less with the centre loss "
    "than without. Alone the piece does not help with shifts this large; it only keeps features near their places.",
    trained="digits in four domains, ten classes each; MLP 64-100-100-10, SGD at rate 0.05, batch 10, 10 epochs, "
    "10 replayed rows a step",
    method=methods.center_loss_cl,
    controls={"no piece": nothing},
    measure=measure,
    holds=("er_centre >= er + 0.03", "forgetting_er_centre < forgetting_er", "drift_centre < drift_naive"),
)
