"""UNSIR: noise that is worst for a class takes the place of its rows, and overwrites what the model knows of it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Nets, Problem
from oblivio.core.seeds import generator, mix
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.surgery import surgery
from oblivio.core.term import Term
from oblivio.registry import method
from oblivio.terms import fit


class Noise(nn.Module):
    """Inputs ``x`` that can be learned, shape (rows, *shape), standard normal at first; ``y`` are their classes."""

    y: Tensor

    def __init__(self, classes: list[int], rows: int, shape: list[int], seed: int) -> None:
        super().__init__()
        self.register_buffer("y", torch.tensor(classes).repeat_interleave(rows))
        self.x = nn.Parameter(torch.randn(len(self.y), *shape, generator=generator(seed, "noise")))


@surgery
def add_noise(
    nets: MutableMapping[str, nn.Module], *, classes: list[int], rows: int, shape: list[int], seed: int
) -> None:
    """Add the net ``noise``: so many rows of each class. The model stays as it is."""
    nets["noise"] = Noise(classes, rows, shape, seed)


@edit
def draw_noise(problem: Problem, rows: int) -> None:
    """Noise for every class of the forgotten rows."""
    problem.source("retain")  # what is made later hides from the run's own check
    asked = list(problem.source("forget").batches(4096))
    classes = torch.cat([batch["y"] for batch in asked]).unique().tolist()
    seed = mix(problem.seed, problem.turn, "unsir")
    problem.operate(add_noise, classes=classes, rows=rows, shape=list(asked[0]["x"].shape[1:]), seed=seed)


@edit(makes=True)
def give_noise(problem: Problem) -> None:
    """The noise as it now is, with its classes, as a source ``noise``."""
    net = problem.nets["noise"]
    problem.make("noise", x=net.get_parameter("x").detach().clone(), y=net.get_buffer("y").clone())


class worst(Term):
    """Minus the loss of the model on the noise, and ``pull`` times its mean squared norm: it reads no rows."""

    def __init__(self, pull: float) -> None:
        self.pull = pull

    def __call__(self, step: Step) -> Tensor:
        def value(nets: Nets) -> Tensor:
            net = nets["noise"]
            assert isinstance(net, Noise)
            x, y = net.x, net.y
            batch = Batch(step.source("forget"), torch.arange(len(y)), {"x": x, "y": y})
            loss = step.task.each(step.task.forward(nets, "model", batch), batch).mean()
            return self.pull * x.flatten(1).square().sum(1).mean() - loss

        return step.call(value) * step.share  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"worst(pull={self.pull:g})"


@method(
    paper="Tarun et al., Fast Yet Effective Machine Unlearning, IEEE TNNLS 2023",
    needs=("forget", "retain"),
    serves=("class",),
    refusal="its noise stands for a whole class, and would take the rows that stay of it along",
    aliases=("impair_repair", "fast_yet_effective"),
    cost="steps on the noise, then an epoch over retain with a batch of noise beside each, and one without",
)
def unsir(
    rows: Annotated[int, Field(gt=0)] = 256,
    steps: Annotated[int, Field(gt=0)] = 40,
    noise_lr: Annotated[float, Field(gt=0)] = 0.1,
    pull: Annotated[float, Field(ge=0)] = 0.1,
    impair_lr: Annotated[float, Field(gt=0)] = 0.01,
    impair_epochs: Annotated[float, Field(gt=0)] = 1,
    repair_lr: Annotated[float, Field(gt=0)] = 0.005,
    repair_epochs: Annotated[float, Field(gt=0)] = 3,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Learn noise that the model is most wrong about, train on it as the class, then repair on the rest.

    Equation: noise: min pull |x|^2 - CE(x, class) in x, over so many ``rows`` for each class; impair: min CE(noise,
    class) + CE(retain); repair: min CE(retain); each by an Adam of its own.
    Needs: retained rows with labels; of the forgotten rows only their classes and the shape of an input are read.
    Fails: with a low rate of impairing, the class is called up instead of overwritten; a high one needs more repair
    than an epoch. On digits noise of a single step does as well as learned noise (its claim). Rows, steps and noise_lr
    are those of the official code, which mixes noise and 1,000 retained rows a class in batches of 256 and has rates of
    0.02 and 0.01 and one repairing epoch; ours were chosen on digits.
    The noise stays beside the model as the net ``noise``.
    """
    learn = Descent(worst(pull), "noise.*", opt=adam(noise_lr), steps=steps, batch=batch)
    impair = Descent(
        fit("noise") + fit("retain"), opt=adam(impair_lr), over="retain", epochs=impair_epochs, batch=batch
    )
    repair = Descent(fit("retain"), opt=adam(repair_lr), epochs=repair_epochs, batch=batch)
    return draw_noise(rows) >> learn >> give_noise() >> impair >> repair
