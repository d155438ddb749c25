"""Active and temporary forgetting: a piece that draws the token embeddings anew now and then while a model learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.where import How
from oblivio.networks.language.parts import embedding
from oblivio.registry import method


@method(
    kind="piece",
    paper="Anand et al., Dual Process Learning: Controlling Use of In-Context vs. In-Weights Strategies with Weight "
    "Forgetting, 2024",
    needs=("new|retain|train",),
    on="finetune",
    tasks=("causal_lm", "vision_language"),
    aliases=("active_forgetting", "temporary_forgetting"),
    cost="none but a slower start",
)
def dual_process(
    every: Annotated[int, Field(gt=0)] = 100,
    until: Annotated[int, Field(ge=0)] | None = 1200,
    sd: Annotated[float, Field(gt=0)] | None = None,
) -> Callable[[Stage], Stage]:
    """Draw all token embeddings anew every so many steps, so that a model must use the place of a token in its text.

    Equation: E ~ N(0, sd^2) after every ``every``-th step before step ``until`` (None: to the end, which is active
    forgetting), their moments zero and the count of their bias correction too; other weights keep theirs. After
    ``until`` frequent tokens are memorised as ever, while rare ones keep being told by their place. sd None is that of
    the embeddings before the first step; the row of a padding token stays.
    Needs: a model whose embeddings are trained; rows and entries that may not move stay.
    Fails: the published code draws with a deviation of 1 where the model began with 0.02, which stalls training; where
    input and output embeddings are tied the decoder goes too.
    """
    return lambda plan: plan.but(how=redrawn(every, until, sd))


class redrawn(How):
    """Draws the embeddings of the model anew, and clears what the optimiser knows of them."""

    def __init__(self, every: int, until: int | None, sd: float | None) -> None:
        self.every, self.until, self.sd = every, until, sd

    def prepare(self, problem: Problem) -> None:
        name = embedding(problem.model)
        self.state["name"] = f"model.{name}"
        self.state["padding"] = getattr(problem.model.get_submodule(name.removesuffix(".weight")), "padding_idx", None)
        if "sd" not in self.state:
            self.state["sd"] = self.sd or float(problem.weights(f"model.{name}")[f"model.{name}"].detach().std())

    def after(self, step: Step) -> None:
        made, name = step.t + 1, self.state["name"]
        if made % self.every or (self.until is not None and made >= self.until) or name not in step.weights:
            return
        weight = step.weights[name]
        fresh = self._free(weight, step.selection[name])
        noise = torch.randn(weight.shape, generator=step.rng("embeddings"), device=weight.device, dtype=weight.dtype)
        weight.copy_(torch.where(fresh, self.state["sd"] * noise, weight))
        assert step.opt is not None
        step.opt.clear(name, fresh)
        if step.selection[name] is None:
            self._restart(step, name)

    def _free(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        """The entries that are drawn anew."""
        fresh = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.bool().clone()
        if self.state["padding"] is not None:
            fresh[self.state["padding"]] = False
        return fresh

    def _restart(self, step: Step, name: str) -> None:
        """The steps that bias correction counts begin anew, as they do where nothing was learned yet."""
        assert step.opt is not None
        count = step.opt.save().get(name, {}).get("step")
        if isinstance(count, Tensor):
            count.zero_()
