"""LiNeS: a piece that takes back the update of early layers after training, and leaves that of late ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.methods.pieces._depth import BEFORE, FACTOR, depths
from oblivio.networks.language.parts import blocks
from oblivio.registry import method

GRID = tuple(i / 10 for i in range(11))
TINY = 1e-12


@method(
    kind="piece",
    paper="Wang et al., LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging, ICLR 2025",
    needs=("new|retain|train",),
    on="finetune",
    tasks=("causal_lm", "vision_language"),
    aliases=("layer_scaling",),
    cost="a copy of the weights that move; no pass, or with alpha None 13 over valid and control",
)
def lines(
    alpha: Annotated[float, Field(ge=0, le=1)] | None = 0.5,
    beta: Annotated[float, Field(ge=-1, le=1)] | None = None,
    head: Literal["last", "alpha"] = "last",
) -> Callable[[Stage], Stage]:
    """Scale what a plan has changed by depth: little of it in the first block, all of it in the last.

    Equation: theta = theta_start + lambda_l (theta - theta_start), lambda_l = alpha + beta l / (L - 1) for the blocks
    l = 0 .. L - 1, beta = 1 - alpha unless given; alpha for what comes before the blocks. What comes after them (last
    norm, head) is scaled as the last block, since a new skill needs its tokens; ``head="alpha"`` is the published code.
    alpha None takes the one of 0, 0.1, ..., 1 with the greatest 2 m / m_trained + c / c_start, m the figure on the rows
    ``valid`` of what was learned and c that on ``control``, rows of what the model could do before.
    Needs: a network with blocks, of any kind. Buffers stay as training left them. Of a LoRA adapter the second factor
    is scaled, and so their product.
    Fails: uniform scaling keeps as much where what is learned lies in the early blocks.
    """
    scaling = scaled(alpha, beta, head)
    scaling.keeps = ("start",)
    return lambda plan: plan >> scaling


@edit
def scaled(problem: Problem, alpha: float | None, beta: float | None, head: str) -> None:
    """Scale the change since the start of the run, by depth."""
    trained = {n: w.detach().clone() for n, w in problem.weights("model.*").items()}

    def put(value: float) -> None:
        _put(problem, trained, shares(problem, value, 1 - value if beta is None else beta, head))

    put(_best(problem, put) if alpha is None else alpha)


def shares(problem: Problem, alpha: float, beta: float, head: str) -> dict[str, float]:
    """How much of its change every weight of the model keeps, by its full name."""
    last = len(blocks(problem.model)) - 1

    def share(name: str, depth: int) -> float:
        if FACTOR in name:
            return 1.0
        if depth == BEFORE or (depth > last and head == "alpha"):
            return alpha
        return alpha + beta * min(depth, last) / max(last, 1)

    return {f"model.{name}": share(name, depth) for name, depth in depths(problem.model).items()}


def _put(problem: Problem, trained: Grads, share: dict[str, float]) -> None:
    start = problem.kept("start")
    for name, weight in problem.weights("model.*").items():
        if name in start and start[name].shape == weight.shape:  # what has grown since has nothing to go back to
            weight.copy_(start[name].lerp(trained[name], share[name]))


def _best(problem: Problem, put: Callable[[float], None]) -> float:
    """The alpha of ``GRID`` that keeps most of both skills; of equals the smallest."""
    if not problem.task.higher:
        raise BadInput(f"lines weighs figures where more is better; {problem.task.figure} is none: give alpha")
    put(1.0)
    learned = problem.score("valid")
    put(0.0)
    known = problem.score("control")
    worth = {}
    for alpha in GRID:
        put(alpha)
        worth[alpha] = 2 * problem.score("valid") / max(learned, TINY) + problem.score("control") / max(known, TINY)
    return max(worth, key=lambda alpha: worth[alpha])
