"""AMA: a piece that averages a model with what it was before a training, in a ratio learned for every depth."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping
from typing import Annotated, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from oblivio.core.descent import Descent
from oblivio.core.grads import Grads
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.surgery import surgery
from oblivio.core.term import Rule, Term, rule
from oblivio.core.where import Selection, Where
from oblivio.methods.pieces._depth import BEFORE, FACTOR, depths
from oblivio.methods.pieces._learning import learning
from oblivio.modules.fresh import drop_net
from oblivio.networks.language.parts import blocks
from oblivio.registry import method
from oblivio.terms import fit

NET = "ratios"  # the net beside the model that holds what is learned
Members: TypeAlias = "dict[str, int | None]"
MIDDLE, LAYERS = 13, 26  # of the model that the published weights of depths are for


@method(
    kind="piece",
    paper="Lin et al., Mitigating the Alignment Tax of RLHF, EMNLP 2024",
    needs=("new|retain|train",),
    on="finetune",
    tasks=("causal_lm", "vision_language"),
    aliases=("adaptive_model_averaging", "model_averaging", "wise_ft"),
    cost="a copy of the weights that move; a forward and backward a step for as many numbers as there are groups",
)
def ama(
    a: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    groups: Annotated[int, Field(gt=0)] = 3,
    eps: Annotated[float, Field(ge=0)] = 0.2,
    reg: Annotated[float, Field(ge=0)] = 1e-4,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    epochs: Annotated[float, Field(ge=0)] = 10,
    batch: Annotated[int, Field(gt=0)] = 12,
) -> Callable[[Stage], Stage]:
    """Average the weights before and after a plan, and learn on its own rows how much of the old each depth takes.

    Equation: theta_k = a_k theta_start + (1 - a_k) theta for ``groups`` groups k of consecutive blocks, a_k = a
    (sigmoid(s_k) + eps) / mean_j (sigmoid(s_j) + eps), so that their mean is a; what comes before the blocks is of the
    first group, what comes after them (last norm, head) takes a itself. s is all that is trained, from logit(a): min
    CE(rows the plan learns) + reg sum_l w_l |a_k(l) - a|, w_l = 25 / (|l - 13| + 1) with l scaled to 26 layers.
    Then the average is put into the model. Without epochs it is uniform averaging.
    Needs: a plan that learns rows (retain, train or new), and a network with blocks. The published rate, 2e-5, is for
    many more steps. Of a LoRA adapter the second factor is averaged, and so their product.
    Fails: uniform averaging does as well where all depths changed alike.
    """

    def put(plan: Stage) -> Stage:
        plan, found = learning(plan, "ama")
        loss = averaged(fit(found[-1][1]), a, eps) + reg * uneven(a, eps)
        mixing = Descent(
            loss, where=numbers(), opt=adamw(lr, wd=0.0), over=found[-1][1], epochs=epochs, batch=batch, moves=()
        )
        end = merged(a, eps)
        end.keeps = ("start",)
        return plan >> begun(groups, a) >> mixing >> end

    return put


class numbers(Where):
    """What is learned, while it is there."""

    def select(self, problem: Problem) -> Selection:
        return {f"{NET}.s": None} if NET in problem.nets else {}

    def __repr__(self) -> str:
        return "numbers()"


class Ratios(nn.Module):
    """The numbers ``s``, one a group of blocks."""

    def __init__(self, groups: int, a: float) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.full((groups,), math.log(a / (1 - a))))


@surgery(appends=True)
def add_ratios(nets: MutableMapping[str, nn.Module], *, groups: int, a: float) -> None:
    """Put the numbers to be learned beside the model."""
    nets[NET] = Ratios(groups, a)


@edit(writes=False)
def begun(problem: Problem, groups: int, a: float) -> None:
    """No more groups than blocks."""
    problem.operate(add_ratios, groups=min(groups, len(blocks(problem.model))), a=a)


@edit
def merged(problem: Problem, a: float, eps: float) -> None:
    """Put the average into the model, and take the numbers out."""
    average = mixed(problem, ratios(_numbers(problem), a, eps), a)
    for name, weight in problem.weights("model.*").items():
        weight.copy_(average.get(name, weight))
    problem.operate(drop_net, name=NET)


def ratios(s: Tensor, a: float, eps: float) -> Tensor:
    """The share of the old weights in every group; their mean is ``a``."""
    size = s.sigmoid() + eps
    return a * size / size.mean()


def mixed(problem: Problem, share: Tensor, a: float, group: Members | None = None) -> Grads:
    """The average of the weights at the start and now, where there is such a weight at the start."""
    start, group = problem.kept("start"), group or members(problem.model, len(share))
    return {
        name: weight.detach().lerp(start[name], share[k].to(weight.dtype) if (k := group[name]) is not None else a)
        for name, weight in problem.weights("model.*").items()
        if name in start and start[name].shape == weight.shape and FACTOR not in name
    }


def members(model: nn.Module, groups: int) -> Members:
    """The group of every weight by its full name; None after the blocks."""
    count = len(blocks(model))
    return {
        f"model.{name}": None if depth == count else 0 if depth == BEFORE else depth * groups // count
        for name, depth in depths(model).items()
    }


def _numbers(problem: Problem) -> Tensor:
    return problem.nets.get_parameter(f"{NET}.s")


@rule
class averaged(Rule):
    """A term at the averaged weights, differentiated in the numbers that give the ratios."""

    term: Term
    a: float
    eps: float
    keeps = ("start",)

    def grad(self, step: Step, graph: bool = False) -> Grads:
        problem = step.problem
        made = torch.func.vjp(lambda s: ratios(s, self.a, self.eps), _numbers(problem).detach())
        share, pull = made[0], made[1]
        if "_group" not in self.__dict__:  # what the structure says, which does not change in a stage
            self._group = members(problem.model, len(share))
        with torch.no_grad():
            average = mixed(problem, share, self.a, self._group)
        g, start, now = self.term.grad(step.at(average)), problem.kept("start"), problem.weights("model.*")
        slopes = torch.zeros_like(share)
        for name, k in self._group.items():
            if k is not None and name in g:
                slopes[k] += (g[name] * (start[name] - now[name].detach())).sum()
        return {f"{NET}.s": pull(slopes)[0]}


class uneven(Term):
    """sum_l w_l |a_k(l) - a| over the blocks l, those in the middle weighing most."""

    def __init__(self, a: float, eps: float) -> None:
        self.a, self.eps = a, eps

    def __call__(self, step: Step) -> Tensor:
        s, count = _numbers(step.problem), len(blocks(step.problem.model))
        place = torch.arange(count, device=s.device)
        weight = (LAYERS - 1) / ((place * LAYERS / count - MIDDLE).abs() + 1) * LAYERS / count
        apart = (ratios(s, self.a, self.eps) - self.a).abs()[place * len(s) // count]
        return (weight * apart).sum() * step.share
