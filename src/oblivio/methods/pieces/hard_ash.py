"""Hard ASH: a piece that gives a network a sparse activation and an optimiser that slows down where it has learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from oblivio.core.opt import Opt, adagrad, rmsprop
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.how import limit
from oblivio.modules.ash import Ash, make_sparse
from oblivio.registry import method


@method(
    kind="piece",
    paper="Keskinen, Hard ASH: Sparsity and the right optimizer make a continual learner, 2024",
    needs=("new|retain|train",),
    on="er",
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("ash", "hard_adaptive_shift"),
    cost="one mean and deviation a sample and layer; a second number a weight, and its value before the step",
)
def hard_ash(
    optimiser: Literal["rmsprop", "adagrad"] = "rmsprop",
    lr: Annotated[float, Field(gt=0)] | None = None,
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9993,
    alpha: Annotated[float, Field(gt=0)] = 3.0,
    z: float = 2.3,
    activation: Literal["hard_ash", "ash"] = "hard_ash",
    most: Annotated[float, Field(gt=0)] = 0.01,
) -> Callable[[Stage], Stage]:
    """Few units answer to a row, and a weight's rate falls with the gradients it has had: little is overwritten.

    Equation: a = clip(x, 0, 2) hardsigmoid(alpha (x - m - z s)), or (ash) x sigmoid(...), with m and s mean and
    deviation over the units of one sample, x the product with rows of W that are centred and of unit length, no
    biases; the step of RMSprop (``decay`` of the squares) or Adagrad (squares from 1e-6 up), at most ``most`` a weight.
    ``lr`` None is the paper's for MNIST: RMSprop 5.5e-6, Adagrad 2e-4.
    Needs: a chain (``modules.chain``) that has learned nothing, since its linear weights are drawn anew before the
    first step; inputs with mean 0 and deviation 1; few passes. It takes the place of the plan's own optimiser, and
    keeps its state over all experiences.
    Fails: at a higher rate or over many epochs, and with a decay of 0.99, it forgets as any other network.
    """
    rate = lr if lr is not None else {"rmsprop": 5.5e-6, "adagrad": 2e-4}[optimiser]

    def opt() -> Opt:
        if optimiser == "adagrad":
            return adagrad(rate, initial=1e-6, carry=True)
        return rmsprop(rate, decay, carry=True)

    return lambda plan: sparse(alpha, z, activation == "hard_ash") >> plan.but(how=limit(most), opt=opt())


@edit
def sparse(problem: Problem, alpha: float, z: float, hard: bool) -> None:
    """The surgery, once in the life of a model."""
    if not any(isinstance(module, Ash) for module in problem.model.modules()):
        problem.operate(make_sparse, alpha=alpha, z=z, hard=hard, seed=mix(problem.seed, "hard_ash"))
