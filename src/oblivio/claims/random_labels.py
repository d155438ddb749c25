"""The random-label stream: every task is 200 digits with fresh random labels, to be learned by heart.

No task helps another, so that a network which stays able to learn is as good at the last as at the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

import torch
from torch import Tensor, nn

from oblivio import networks
from oblivio.claims.claim import Figures
from oblivio.claims.problems import digits
from oblivio.core.descent import Descent
from oblivio.core.opt import Opt
from oblivio.core.plan import Stage
from oblivio.core.seeds import generator, mix
from oblivio.learners import Learner
from oblivio.terms import fit

ROWS, BATCH, CLASSES = 200, 20, 10
ENDS = 10  # tasks at either end whose mean is a figure
STREAM = f"{ROWS} digits a task with fresh random labels; MLP 64-64-64-10, Kaiming's weights, batch {BATCH}"

_paths: dict[tuple[str, int, int], list[float]] = {}


def tasks(seed: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of the training digits, grey values in [0, 1], and labels that mean nothing; ``count`` times."""
    x = digits().train.batch(torch.arange(len(digits().train)))["x"]
    for task in range(count):
        g = generator(seed, "random labels", task)
        yield x[torch.randperm(len(x), generator=g)[:ROWS]], torch.randint(CLASSES, (ROWS,), generator=g)


def network(seed: int) -> nn.Module:
    """The MLP, its weights from Kaiming's uniform distribution and its biases zero, as CBP draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, "random labels"))
        net = networks.build("mlp", (1, 8, 8), CLASSES, hidden=(64, 64))
        for layer in net.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
    return net


def plain(epochs: int, opt: Opt) -> Stage:
    """Training on each task in turn, and nothing else."""
    return Descent(fit("new"), over="new", epochs=epochs, batch=BATCH, opt=opt)


def path(plan: Stage, seed: int, count: int) -> list[float]:
    """Accuracy on each task's own rows when it has been learned; a plan that prints the same is run once."""
    if (known := (repr(plan), seed, count)) not in _paths:
        learner = Learner(network(seed), plan, "classification", seed=seed)
        _paths[known] = [_learned(learner, x, y) for x, y in tasks(seed, count)]
    return _paths[known]


def afresh(plan: Stage, seed: int, count: int) -> list[float]:
    """The same with a new network for every task: what is lost by going on with the old one."""
    each = enumerate(tasks(seed, count))
    return [_learned(Learner(network(mix(seed, i)), plan, "classification", seed=seed), x, y) for i, (x, y) in each]


def _learned(learner: Learner, x: Tensor, y: Tensor) -> float:
    learner.learn(new=(x, y))
    return float((learner.predict(x).argmax(1) == y).float().mean())


def ends(name: str, values: list[float]) -> Figures:
    """The mean over the first tasks and over the last."""
    return {f"{name}_first": fmean(values[:ENDS]), f"{name}_last": fmean(values[-ENDS:])}
