"""RMU: hidden states of forgotten texts are driven to a random direction, those of retained texts stay."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage
from oblivio.core.problem import Nets, Problem, rng
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, Term
from oblivio.core.where import Selection, Where
from oblivio.networks.language.parts import blocks, mlp_outputs
from oblivio.registry import method
from oblivio.tasks.language import ahead, mean

DEPTH = 7 / 32  # of the layer in the published settings


@method(
    paper="Li et al., The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning, ICML 2024",
    needs=("forget", "retain"),
    tasks=("causal_lm",),
    aliases=("representation_misdirection",),
    labels=False,
    cost="one pass over forget; epochs over forget and retain, with a backward up to one layer, and a forward at the "
    "start's weights over retain; of the start only the weights that move are kept",
)
def rmu(
    layer: Annotated[int, Field(ge=0)] | None = None,
    c: Annotated[float, Field(gt=0)] = 5.0,
    alpha: Annotated[float, Field(ge=0)] = 10.0,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    epochs: Annotated[float, Field(gt=0)] = 33,
    batch: Annotated[int, Field(gt=0)] = 12,
) -> Stage:
    """Make what a middle layer says of the forgotten texts senseless, and keep what it says of the others.

    Equation: min mean |h(forget) - c m u|^2 / d + alpha mean |h(retain) - h_start(retain)|^2 / d over the tokens that
    predict an answer, h the output of block ``layer`` (counted from 0; None: at 7/32 of the depth), d its width, u a
    vector of length 1 with random positive entries. m is the mean length of h on forget at the start, as which models
    differ by orders of magnitude: the published c of 6.5 for Zephyr is a length itself. AdamW without decay on the
    last matrix of the feed-forward network in the blocks ``layer`` - 2 to ``layer``; all else keeps its bits.
    Needs: forgotten and retained texts. Prompts are left alone: they are worded alike on both sides.
    Fails: with c near 1 it is weak. Answers to forgotten questions become gibberish, not what a retrained model says.
    """
    loss = misdirect("forget", layer, c) + alpha * hold("retain", layer)
    return Descent(
        loss, where=outputs(layer), opt=adamw(lr, wd=0.0), over="forget", epochs=epochs, batch=batch, moves=()
    )


def depth(problem: Problem, layer: int | None) -> int:
    """The block that is meant. Raises BadInput where no block follows it."""
    count = len(blocks(problem.model))
    found = min(round(DEPTH * count), count - 2) if layer is None else layer
    if not 0 <= found < count - 1:
        raise BadInput(f"rmu: layer {found} of {count}; it must be from 0 to {count - 2}, since later blocks read it")
    return found


class outputs(Where):
    """The last matrix of the feed-forward network in the block and in the two before it."""

    def __init__(self, layer: int | None) -> None:
        self.layer = layer

    def select(self, problem: Problem) -> Selection:
        last = depth(problem, self.layer)
        return {f"model.{name}": None for name in mlp_outputs(problem.model)[max(last - 2, 0) : last + 1]}

    def __repr__(self) -> str:
        return f"outputs({self.layer})"


class hidden(Term):
    """A term on the output of a block, which is the input of the one that follows."""

    def __init__(self, on: On, layer: int | None) -> None:
        self.on, self.layer = on, layer

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]
        """The block that follows, once it is known."""
        return (self.state["reader"],) if "reader" in self.state else ()

    def prepare(self, problem: Problem) -> None:
        self.state["reader"] = f"model.{blocks(problem.model)[depth(problem, self.layer) + 1]}"

    def off(self, step: Step, target: Tensor) -> Tensor:
        """The squared distance to a target, the mean over width and over the tokens that predict an answer; ()."""
        apart = (step.tap(self.on, self.state["reader"]) - target).square().mean(2)
        return mean(apart[:, :-1], ahead(step.batch(self.on)["y"])[1]).sum() / step.count(self.on)


class misdirect(hidden):
    """The distance to c m u; u and m are drawn and measured before the first step, and kept."""

    def __init__(self, on: On, layer: int | None, c: float) -> None:
        super().__init__(on, layer)
        self.c = c

    def prepare(self, problem: Problem) -> None:
        super().prepare(problem)
        length, width = measured(problem, self.on, self.state["reader"])
        u = torch.rand(width, generator=rng(problem, "rmu"), device=problem.team.device)
        self.state.update(length=length, target=self.c * length * u / u.norm())

    def __call__(self, step: Step) -> Tensor:
        return self.off(step, self.state["target"])


class hold(hidden):
    """The distance to what the layer said at the start."""

    keeps = ("start",)

    def __call__(self, step: Step) -> Tensor:
        return self.off(step, step.tap(self.on, self.state["reader"], at="start"))


def measured(problem: Problem, on: On, reader: str) -> tuple[float, int]:
    """The mean length of a layer's inputs at the tokens that predict an answer of these rows, and their width."""
    found: list[Tensor] = []
    handle = problem.nets.get_submodule(reader).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))

    def look(nets: Nets, batch: Batch) -> Tensor:
        found.clear()
        problem.task.forward(nets, "model", batch)
        return mean(found[0].norm(dim=2)[:, :-1], ahead(batch["y"])[1])

    try:
        with torch.no_grad():
            return float(problem.tabulate(on, look).mean()), found[0].shape[2]
    finally:
        handle.remove()
