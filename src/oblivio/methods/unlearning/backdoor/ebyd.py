"""EBYD: unlearn what is clean, so that the backdoor stands alone; find its channels there, and cut them off."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.grads import top
from oblivio.core.opt import adam, sgd
from oblivio.core.plan import Stage, edit, keep
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.surgery import surgery
from oblivio.core.term import On, Term, term
from oblivio.core.where import How, Selection, Where
from oblivio.how import clip
from oblivio.modules.fresh import drop_net
from oblivio.registry import method

CHANNELS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class expose(Term):
    """A loss that unlearns its rows; ``done`` as soon as the accuracy on them is ``level`` or less."""

    def __init__(self, loss: Term, level: float) -> None:
        self.loss, self.level = loss, level

    def __call__(self, step: Step) -> Tensor:
        return self.loss(step)

    def done(self, problem: Problem) -> bool:
        """Whether enough is unlearned."""
        return all(problem.score(on) <= self.level for on in self.reads)


@surgery
def add_masks(nets: MutableMapping[str, nn.Module], *, layers: list[str]) -> None:
    """Add the net ``masks``: a number for every output channel of these layers of the model, 1 at first."""
    named = dict(nets["model"].named_modules())
    nets["masks"] = nn.ParameterDict({_key(n): torch.ones(len(named[n].weight)) for n in layers})


def _key(layer: str) -> str:
    return layer.replace(".", "/")


def layers(problem: Problem) -> list[str]:
    """Linear and convolutional layers of the model, without the head."""
    found = [f"model.{n}" for n, m in problem.model.named_modules() if isinstance(m, CHANNELS)]
    return [name.removeprefix("model.") for name in found if name != problem.features]


@edit
def attach(problem: Problem) -> None:
    """A mask for every channel before the head."""
    problem.operate(add_masks, layers=layers(problem))


class masks(Where):
    """All masks; none where there are no masks any more."""

    def select(self, problem: Problem) -> Selection:
        return {n: None for n, _ in problem.nets.named_parameters() if n.startswith("masks.")}


@term
def masked(step: Step, on: On) -> Tensor:
    """The training loss, weights and biases of every channel times its mask."""
    scaled, nets = {}, step.problem.nets
    for name, mask in nets["masks"].named_parameters(prefix="masks"):
        now = step.weights.get(name, mask)
        layer = "model." + name.removeprefix("masks.").replace("/", ".")
        for part, weight in nets.get_submodule(layer).named_parameters(prefix=layer, recurse=False):
            scaled[part] = step.weights.get(part, weight) * now.view(-1, *[1] * (weight.dim() - 1))
    return step.task.each(step.at({**step.weights, **scaled}, graph=True).out(on), step.batch(on))


class between(How):
    """Masks stay in [0, 1]."""

    def after(self, step: Step) -> None:
        for name, weight in step.weights.items():
            if name.startswith("masks."):
                weight.clamp_(0, 1)


@edit
def cut(problem: Problem, share: float) -> None:
    """Back to the suspicious model, the ``share`` of its channels with the smallest masks set to zero."""
    values = {n: -m for n, m in problem.nets["masks"].named_parameters()}
    share = max(share, 1 / sum(m.numel() for m in values.values()))
    low = top(values, share)
    problem.restore("suspicious")
    for name, gone in low.items():
        layer = problem.model.get_submodule(name.replace("/", "."))
        for weight in layer.parameters(recurse=False):
            weight[gone] = 0
    problem.operate(drop_net, name="masks")


@method(
    kind="protection",
    paper="Li et al., Expose Before You Defend: Unifying and Enhancing Backdoor Defenses via Exposed Models, 2024",
    needs=("retain",),
    tasks=("classification",),
    serves=("rows",),
    refusal="it finds channels that a trigger uses, and a class has none of its own",
    aliases=("expose_before_you_defend", "clean_unlearning", "cul"),
    cost="expose_epochs, mask_epochs and tune_epochs over retain: a few clean rows are enough",
)
def ebyd(
    labels: bool = False,
    level: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    lr: Annotated[float, Field(gt=0)] = 3e-4,
    wd: Annotated[float, Field(ge=0)] = 5e-4,
    expose_epochs: Annotated[int, Field(ge=0)] = 100,
    mask_lr: Annotated[float, Field(gt=0)] = 0.04,
    mask_epochs: Annotated[int, Field(gt=0)] = 50,
    share: Annotated[float, Field(gt=0, lt=1)] = 0.3,
    tune_lr: Annotated[float, Field(gt=0)] = 0.01,
    tune_epochs: Annotated[int, Field(ge=0)] = 40,
    batch: Annotated[int, Field(gt=0)] = 128,
) -> Stage:
    """Take out a backdoor of which neither the trigger nor a poisoned row is known.

    Equation: 1. max CE(retain), or (``labels``) min CE(retain, random labels), gradient clipped to 20, until the
    accuracy on retain is ``level``; 2. min over masks m in [0, 1] of CE(retain; m theta), one number a channel; 3. in
    the model as it was, the ``share`` of channels with the smallest m goes to zero; 4. min CE(retain), if tune_epochs.
    Needs: a few labelled rows, all of them clean, as ``retain``; layers that are linear or convolutional. ``share``,
    ``level`` and the tuning were chosen on digits, seeds 100 to 103; mask_lr is the paper's 0.2 times its weight 0.2.
    Fails: where every unit of a small network carries a part of the backdoor it weakens it at best; see its claim.
    Ascent on rows of the target class, or too low a level, destroys the backdoor before it can be seen.
    """
    loss = terms.relabel("retain") if labels else -terms.fit("retain")
    against, kept = expose(loss, level), terms.fit("retain")
    return (
        keep("suspicious")
        >> Descent(against, how=clip(20.0), opt=adam(lr, wd=wd), epochs=expose_epochs, batch=batch, until=against.done)
        >> attach()
        >> Descent(masked("retain"), where=masks(), how=between(), opt=sgd(mask_lr, 0.9), epochs=mask_epochs,
                   batch=batch)
        >> cut(share)
        >> Descent(kept, opt=sgd(tune_lr, 0.9), epochs=tune_epochs, batch=batch)
    )  # fmt: skip
