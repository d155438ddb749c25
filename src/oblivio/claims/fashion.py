"""The main job on Fashion-MNIST: every method at its shipped defaults beside models that never saw the rows.

The original and three references are small-cnn by its shipped recipe, each from weights of its own; a tenth of the
training rows is held out, for methods that choose when to stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, Literal

from torch import nn

from oblivio import data, methods
from oblivio.audits.figures import mask, means, noise
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import nothing
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.data.dataset import Dataset
from oblivio.jobs.cache import trained
from oblivio.jobs.job import Forget
from oblivio.jobs.method import apply
from oblivio.jobs.network import network
from oblivio.jobs.recipe import Recipe, shipped
from oblivio.jobs.references import retrained
from oblivio.jobs.rows import divide
from oblivio.jobs.serving import forgotten_classes

NETWORK = "small-cnn"
VALID = 0.1
BASELINES = ("finetune", "retrain")
LIMITS = {"": 0.02, "_kept": 0.015}  # of the gap on forgotten rows, and on test rows of kept classes
ENOUGH = 4  # methods that must succeed besides these
LOOK = 6000  # training rows of a fast run

Kind = Literal["class", "rows"]
Nets = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Case:
    """A request and the networks that never saw its rows."""

    start: Problem
    references: list[Nets]

    def seen(self, name: str, nets: Nets) -> Figures:
        """Accuracy on forgotten rows, and on test rows of the classes that are kept."""
        classes = forgotten_classes(self.start)
        found = means(self.start, nets, classes)
        return {name: found["forget"], f"{name}_kept": found["test_kept" if classes else "test"]}


def case(request: Forget, seed: int, dataset: Dataset, recipe: Recipe, references: int) -> Case:
    """Train the original and its references, or take them from the cache."""
    rows, net = divide(dataset, request, VALID, seed), network(NETWORK, {}, dataset)
    original = trained(recipe, net, rows.train, seed, task=dataset.task)
    start = Problem(original.module, task=dataset.task, seed=seed, forget=rows.forget, retain=rows.retain,
                    valid=rows.valid, test=rows.test)  # fmt: skip
    never = (retrained(i, recipe, net, rows.retain, seed, task=dataset.task).module for i in range(references))
    return Case(start, [{"model": module} for module in never])


def measure(method: Method, seed: int, *, kind: Kind, request: Forget, epochs: float | None = None,
            references: int = 3, most: int | None = None) -> Figures:  # fmt: skip
    """Accuracy of all models; ``most`` training rows and ``epochs`` of training are for a look."""
    dataset, recipe = data.load("fashion_mnist"), shipped(NETWORK)
    if most is not None:
        dataset = replace(dataset, train=dataset.train.take(range(most)))
    if epochs is not None:
        recipe = recipe.but(epochs=epochs)
    of = case(request, seed, dataset, recipe, references)
    before = dict(of.start.nets.items())
    never = [of.seen("references", nets) for nets in of.references]
    figures = {name: fmean(each[name] for each in never) for name in never[0]} | of.seen("original", before)
    for name in serving(kind):
        after = dict(apply(method(name=name), of.start)[0].nets.items())
        figures |= of.seen(name, after)
        if name == "finetune":
            figures |= of.seen("noise", noise(before, after, seed))
    if kind == "class":
        figures |= of.seen("masked", mask(before, forgotten_classes(of.start)))
    return figures | {f"{name}_off": off(name, figures) for name in serving(kind)}


def serving(kind: Kind) -> list[str]:
    """The methods that serve this kind of request on a classification."""
    specs = [methods.spec(name) for name in methods.names]
    return [s.id for s in specs if s.kind == "unlearning" and kind in s.serves and "classification" in s.tasks]


def by_name(name: str) -> Stage:
    """A method at its defaults."""
    plan: Stage = methods.registry.get(name)()
    return plan


def off(name: str, figures: Figures) -> float:
    """How far a method is from the references, the larger of its two gaps in units of ``LIMITS``: 1 is just enough."""
    gaps = {rows: abs(figures[f"{name}{rows}"] - figures[f"references{rows}"]) for rows in LIMITS}
    return max(gaps[rows] / LIMITS[rows] for rows in LIMITS)


def claim(kind: Kind, rows: str | dict[str, Any], trained: str, holds: tuple[str, ...] = (),
          because: Mapping[str, str] | None = None) -> Claim:  # fmt: skip
    """The claim on one kind of request; ``holds`` must hold besides."""
    contenders = [name for name in serving(kind) if name not in BASELINES]
    on = partial(measure, kind=kind, request=Forget(rows=rows))
    return Claim(
        says=f"At least {ENOUGH} methods besides {' and '.join(BASELINES)}, each at its shipped defaults, end within 2 "
        "points of three retrained models on forgotten rows, and within 1.5 on test rows of kept classes (off: the "
        "larger gap in units of these limits, mean over the seeds). Also shown: the untouched original, its output "
        "with the class masked, and noise on its weights as large as the change by finetune.",
        trained=f"fashion_mnist, {NETWORK} by its shipped recipe; {trained}",
        method=by_name,
        controls={"every method as a no-op": nothing},
        measure=on,
        holds=(f"count({', '.join(f'{name}_off <= 1' for name in contenders)}) >= {ENOUGH}", *holds),
        because=because or {},
        fast=partial(on, epochs=2, references=1, most=LOOK),
    )
