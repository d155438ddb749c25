"""Hard ASH: a sparse activation and an optimiser that slows down, both together, forget little without a memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.continual import course, network, split_digits
from oblivio.core.opt import Opt, adagrad, rmsprop
from oblivio.core.plan import Stage
from oblivio.data.streams.experience import Stream
from oblivio.how import limit
from oblivio.learners import Learner
from oblivio.methods.pieces.hard_ash import sparse
from oblivio.modules.preprocess import Standardise, assembled

EPOCHS, BATCH, WIDTH = 5, 16, 1000
ALPHA, Z = 4.0, 2.3
RATES = {"relu_adagrad": 3e-4, "ash_sgd": 3e-3, "adagrad": 2e-3, "rmsprop": 5e-5}


def standardised(stream: Stream, seed: int) -> nn.Module:
    """One hidden layer behind a scaling that is fitted to the grey values of all experiences."""
    scale = Standardise.identity(stream.inputs)
    scale.refit(stream.joint.rows)
    return assembled(network(stream, seed, (WIDTH,)), scale)


def plain(lr: float) -> Stage:
    """Training on each experience, and nothing else; outputs of classes to come count as all others."""
    plan: Stage = methods.naive(lr=lr, epochs=EPOCHS, batch=BATCH)
    return plan


def both(optimiser: str, lr: float) -> Stage:
    """The piece: activation and optimiser."""
    plan: Stage = methods.hard_ash(optimiser=optimiser, lr=lr, alpha=ALPHA, z=Z)(plain(lr))
    return plan


def optimiser_alone(optimiser: str, lr: float) -> Stage:
    """The optimiser on the network as it is."""
    opt: Opt = adagrad(lr, initial=1e-6, carry=True) if optimiser == "adagrad" else rmsprop(lr, 0.9993, carry=True)
    return plain(lr).but(opt=opt, how=limit(0.01))


def activation_alone(lr: float) -> Stage:
    """The activation under SGD."""
    plan: Stage = sparse(ALPHA, Z, True) >> plain(lr)
    return plan


def accuracy(plan: Stage, seed: int) -> tuple[float, Learner]:
    """Average accuracy over the five tasks at the end."""
    stream = split_digits("class", seed)
    found = course(plan, stream, seed, model=standardised(stream, seed), active="all")
    return found.acc, found.learner


@cache
def baselines(seed: int) -> Figures:
    """What does not depend on the method."""
    plans = {"relu_sgd": plain(0.05), "relu_adagrad": optimiser_alone("adagrad", RATES["relu_adagrad"]),
             "ash_sgd": activation_alone(RATES["ash_sgd"])}  # fmt: skip
    return {name: accuracy(plan, seed)[0] for name, plan in plans.items()}


def active(learner: Learner, x: torch.Tensor) -> float:
    """The mean share of hidden units that are not zero."""
    net: Any = learner.model
    with torch.no_grad():
        hidden = net.net[:-1](net.prepare(x))
    return float((hidden > 0).float().mean())


def measure(method: Method, seed: int) -> Figures:
    """Average accuracy over all classes at the end, and how many units answer to a row."""
    figures, test = baselines(seed), split_digits("class", seed).test
    x = torch.cat([batch["x"] for each in test for batch in each.rows.batches(512)])
    for optimiser in ("adagrad", "rmsprop"):
        figures[optimiser], learner = accuracy(method(optimiser, RATES[optimiser]), seed)
        figures[f"{optimiser}_active"] = active(learner, x)
    return figures


CLAIM = Claim(
    says="Neither the sparse activation with SGD nor Adagrad on ReLU keeps the classes of earlier experiences as the "
    "two together do, without a memory and without being told of a boundary. active is the share of hidden units that "
    "are not zero.",
    trained=f"digits in five tasks of two classes, scenario class, in an order that each seed draws; MLP 64-{WIDTH}-10 "
    f"on standardised inputs, batch {BATCH}, {EPOCHS} epochs, all outputs from the start",
    method=both,
    controls={"the optimiser alone, on ReLU": optimiser_alone},
    measure=measure,
    holds=(
        "max(adagrad, rmsprop) >= relu_adagrad + 0.2",
        "max(adagrad, rmsprop) >= ash_sgd + 0.08",
        "adagrad_active < 0.1",
        "rmsprop_active < 0.1",
    ),
    changed=(
        Changed("rates", "best of 2 to 3 on the seeds measured", "chosen on seeds 100 to 102",
                "what is reported chooses nothing"),
        Changed("alpha", "3 (4)", "4", "with 3 a first run over the same seeds had 0.12 of the units active and failed "
                "two conditions; 4 was then chosen on seeds 100 and 101, where it is as accurate"),
        Changed("seeds", "2", "3", "a verdict needs three"),
    ),
)  # fmt: skip
