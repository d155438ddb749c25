"""Efficiently Robustify: a small robust teacher tunes the last block and three heads of a large model."""

from __future__ import annotations

import copy
import math
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.plan import Stage, edit, keep
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.surgery import surgery
from oblivio.core.term import On, term
from oblivio.core.where import Names, Selection, Where
from oblivio.edits import drop
from oblivio.modules.heads import last_linear, linear_layer
from oblivio.modules.preprocess import assembled
from oblivio.networks import build
from oblivio.registry import method
from oblivio.sources.augment import augment

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Augmented:
    """A batch with these inputs in place of its own. Those of equal settings are equal: terms share their forward."""

    noise: float
    shift: int
    x: Tensor = field(compare=False, repr=False)

    def __call__(self, batch: Batch) -> Batch:
        return batch.but(x=self.x)


def augmented(step: Step, on: On, noise: float, shift: int) -> Augmented:
    """This step's augmented inputs, drawn once."""
    x = step.extra(on, f"augmented {noise} {shift}", lambda batch, rng: augment(batch["x"], noise, shift, rng))
    return Augmented(noise, shift, x)


def selected(combined: Tensor, clean: Tensor, robust: Tensor, disagree: float) -> Tensor:
    """The logits (n, C) of one head a row: of the one with the least entropy where clean and robust disagree.

    They do where KL(clean, robust), the mean of both directions, is above ``disagree``; else it is the combined one.
    """
    outs = torch.stack([combined, clean, robust])
    logs = outs.log_softmax(2)
    entropy = -(logs.exp() * logs).sum(2)
    apart = ((logs[1].exp() - logs[2].exp()) * (logs[1] - logs[2])).sum(1) / 2
    head = torch.where(apart > disagree, entropy.argmin(0), 0)
    return outs[head, torch.arange(len(head), device=head.device)]


class ThreeHeads(nn.Module):
    """In the place of a linear layer: ``combined``, which is that layer, ``clean`` and ``robust``, at first copies.

    Its output is that of one of them for each row, see ``selected``; what is trained are the three of ``each``.
    """

    def __init__(self, linear: nn.Linear, disagree: float) -> None:
        super().__init__()
        self.combined, self.clean, self.robust = linear, copy.deepcopy(linear), copy.deepcopy(linear)
        self.disagree = disagree
        self.train(linear.training)

    def each(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of combined, clean and robust head on features (n, in), each (n, C)."""
        return self.combined(x), self.clean(x), self.robust(x)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, in) to logits (n, C)."""
        return selected(*self.each(x), self.disagree)


@surgery
def three_heads(nets: MutableMapping[str, nn.Module], *, layer: str, disagree: float) -> None:
    """Put ``ThreeHeads`` in the place of the linear ``layer`` of the model; the function stays as it is."""
    if any(isinstance(m, ThreeHeads) for m in nets["model"].modules()):
        raise BadInput("the model has three heads already; start from the one that it was made of")
    heads = ThreeHeads(linear_layer(nets["model"], layer), disagree)
    if layer:
        nets["model"].set_submodule(layer, heads)
    else:
        nets["model"] = heads


@surgery
def mlp_teacher(nets: MutableMapping[str, nn.Module], *, inputs: int, width: int, outputs: int, seed: int) -> None:
    """Add the net ``teacher``: two hidden layers of ``width`` units, behind a copy of the model's preprocessing."""
    prepare = dict(nets["model"].named_children()).get("prepare")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = build("mlp", (inputs,), outputs, hidden=(width, width))
    nets["teacher"] = assembled(net, copy.deepcopy(prepare))


def head(model: nn.Module) -> tuple[str, ThreeHeads]:
    """The three heads of a model and their name in it."""
    return next((n, m) for n, m in model.named_modules() if isinstance(m, ThreeHeads))


@edit
def divide(problem: Problem, disagree: float) -> None:
    """Three heads in place of the last layer."""
    layer = last_linear(problem.model)
    if problem.features != f"model.{layer}".rstrip("."):
        raise BadInput(f"features: the heads stand on the last linear layer {layer!r}; leave out features=")
    problem.operate(three_heads, layer=layer, disagree=disagree)


@edit
def hire(problem: Problem, width: int) -> None:
    """A teacher that has learned nothing."""
    x = next(problem.source("retain").batches(1))["x"]
    prepare = dict(problem.model.named_children()).get("prepare")
    inputs = (x if prepare is None else prepare(x)).numel()
    outputs = head(problem.model)[1].combined.out_features
    problem.operate(
        mlp_teacher, inputs=inputs, width=width, outputs=outputs, seed=mix(problem.seed, problem.turn, "teacher")
    )


class tail(Where):
    """The heads and the last ``layers`` linear or convolutional layers before them, but never the model's first."""

    def __init__(self, layers: int) -> None:
        self.layers = layers

    def select(self, problem: Problem) -> Selection:
        model, name = problem.model, problem.features.removeprefix("model").lstrip(".")
        heads = next((n for n, m in model.named_modules() if isinstance(m, ThreeHeads)), name)
        trunk = [n for n, m in model.named_modules() if isinstance(m, LAYERS) and not f"{n}.".startswith(f"{heads}.")]
        within = tuple(f"model.{n}.".replace("..", ".") for n in [heads, *trunk[1:][-self.layers :]])
        return {n: None for n, _ in problem.nets.named_parameters() if n.startswith(within)}


def each(step: Step, on: On, via: Augmented | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs of the three heads on a batch, or on what it is augmented to."""
    features = step.tap(on, "features", via=via)
    return step.call(lambda nets: head(nets["model"])[1].each(features))  # type: ignore[return-value,arg-type]


def certainty(out: Tensor) -> Tensor:
    """One less the entropy of predictions (n, C) in units of its greatest value: 1 where sure, 0 where even."""
    logs = out.log_softmax(1)
    return 1 + (logs.exp() * logs).sum(1) / math.log(out.shape[1])


def learned(step: Step, on: On, noise: float, shift: int, which: int) -> Tensor:
    """KL of a head from the teacher on augmented rows, times the teacher's certainty."""
    via = augmented(step, on, noise, shift)
    target = step.out(on, "teacher", via=via).detach()
    return certainty(target) * step.task.distance(each(step, on, via)[which], target, step.batch(on))


@term
def withstand(step: Step, on: On, noise: float, shift: int, net: str = "model") -> Tensor:
    """The training loss of ``net`` on augmented rows."""
    return step.task.each(step.out(on, net, via=augmented(step, on, noise, shift)), step.batch(on))


@term(taps=("features",))
def clean(step: Step, on: On) -> Tensor:
    """KL of the clean head from the model as it was."""
    return step.task.distance(each(step, on)[1], step.out(on, at="given"), step.batch(on))


@term(taps=("features",))
def robust(step: Step, on: On, noise: float, shift: int) -> Tensor:
    """The robust head learns from the teacher on augmented rows."""
    return learned(step, on, noise, shift, 2)


@term(taps=("features",))
def combined(step: Step, on: On, noise: float, shift: int) -> Tensor:
    """The combined head learns from the targets of clean rows, and from the teacher on augmented ones."""
    return step.task.each(each(step, on)[0], step.batch(on)) + learned(step, on, noise, shift, 0)


@method(
    kind="protection",
    paper="Jain et al., Efficiently Robustify Pre-trained Models, ICCV 2023",
    needs=("retain",),
    tasks=("classification",),
    aliases=("efficiently_robustify",),
    cost="teacher_epochs of a small net and epochs over retain, backwards through the last layers alone",
)
def efficient_robustify(
    noise: Annotated[float, Field(ge=0)] = 0.5,
    shift: Annotated[int, Field(ge=0)] = 1,
    width: Annotated[int, Field(gt=0)] = 128,
    teacher_epochs: Annotated[int, Field(gt=0)] = 60,
    layers: Annotated[int, Field(gt=0)] = 1,
    disagree: Annotated[float, Field(ge=0)] = 3.0,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    epochs: Annotated[int, Field(gt=0)] = 60,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Make a large model stand up to corrupted inputs by tuning its last ``layers`` and three heads.

    Equation: a small MLP T learns min CE(x) + CE(x'), x' = x shifted and with noise; then over the last layers and
    heads min KL(start(x) || clean(x)) + w KL(T(x') || robust(x')) + CE(combined(x)) + w KL(T(x') || combined(x')),
    w = 1 - H(T(x')) / log C. Served is the head of least entropy where clean and robust head disagree, else combined.
    Needs: labelled rows as ``retain``, a linear last layer. ``noise`` is a deviation in units of the inputs, ``shift``
    is in pixels, of images alone. Defaults were chosen on digits, seeds 100 to 102.
    Fails: the frozen trunk sets the bound: on digits the teacher itself, and training all weights, withstand more. A
    small MLP that cannot learn the task, as on larger photographs, has nothing to teach. Entropies are of one pass: the
    paper takes a few with dropout. Norm layers are frozen, statistics too.
    """
    teach = terms.fit("retain", net="teacher") + withstand("retain", noise=noise, shift=shift, net="teacher")
    learn = clean("retain") + robust("retain", noise=noise, shift=shift) + combined("retain", noise=noise, shift=shift)
    return (
        divide(disagree)
        >> keep("given")
        >> hire(width)
        >> Descent(teach, where=~Names("model.*"), opt=adam(lr), epochs=teacher_epochs, batch=batch)
        >> Descent(learn, where=tail(layers), opt=adam(lr), epochs=epochs, batch=batch)
        >> drop("teacher")
    )
