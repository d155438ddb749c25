"""L-CODEC: a Newton step for one row at a time, on the few units that its loss depends on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads, add
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem, rng
from oblivio.core.source import Source
from oblivio.modules.units import Unit, activations, gathered, incoming, shift
from oblivio.registry import method
from oblivio.terms import fit

Choose = Callable[[Problem, Source], list[Unit]]
PART = 16  # columns whose distances are in memory at once
FAR, SMOOTH, LIPSCHITZ = 1e-3, 0.25, 1.0  # a step for differences on one row; the paper's constants of the loss


def lower(ranks: Tensor, apart: Tensor, z: Tensor) -> Tensor:
    """The smaller of each row's rank and its nearest other row's, the first of several; shape (columns, m).

    Distances are ``apart``, squared, shape (m, m), and that in a column of z, shape (m, columns), for each column.
    """
    found, others = [], apart.clone().fill_diagonal_(math.inf)
    for part in z.T.split(PART):
        far = (part[:, :, None] - part[:, None]).square_().add_(others)
        found.append(torch.minimum(ranks, ranks[far.argmin(2)]))
    return torch.cat(found)


def dependence(y: Tensor, z: Tensor, x: Tensor | None = None) -> Tensor:
    """T(y, z_i), or T(y, z_i | x), of each column of z; shape (columns,).

    Near 0 where y does not depend on the column (given x), near 1 where that determines it; minus infinity where x
    determines y already. y has shape (m,), z and x have (m, columns); the columns of x are given together.
    """
    m, ranks = len(y), (y[:, None] >= y[None]).sum(1).double()
    none = torch.zeros(m, m).to(z)
    if x is None:
        upper = m + 1 - ranks
        return (m * lower(ranks, none, z) - upper**2).sum(1) / (upper * (m - upper)).sum()
    near = (x[:, None] - x[None]).square().sum(2)
    known = lower(ranks, near, torch.zeros(m, 1).to(z))
    left = (ranks - known).sum()
    gain = (lower(ranks, near, z) - known).sum(1)
    return gain / left if left > 0 else torch.full_like(gain, -math.inf)


def blanket(y: Tensor, z: Tensor) -> list[int]:
    """Columns of z, found one by one: that on which y depends most, then more while they add something."""
    live = (z.std(0) > 0).nonzero().flatten().tolist()
    chosen: list[int] = []
    while live:
        scores = dependence(y, z[:, live], z[:, chosen] if chosen else None)
        best = int(scores.argmax())
        if chosen and not scores[best] > 0:
            break
        chosen.append(live.pop(best))
    return chosen


def selected(problem: Problem, row: Source, copies: int, sd: float) -> list[Unit]:
    """The units that the row's loss depends on, over noisy copies of it."""
    batch = row.batch(torch.zeros(copies, dtype=torch.long))
    if not batch["x"].is_floating_point():
        raise BadInput("lcodec: the inputs are whole numbers, to which noise cannot be added; use another method")
    noise = torch.randn(batch["x"].shape, generator=rng(problem, "copies", str(row.ids[0])), device=problem.team.device)
    batch = batch.but(x=batch["x"] + sd * noise)
    out, answers, units = activations(problem, batch)
    return [units[i] for i in blanket(problem.task.each(out, batch).double(), answers)]


def solve(g: Tensor, sides: Tensor, signs: Tensor, lam: float) -> Tensor:
    """(sum of signs_i side_i side_i' + lam I)^-1 g by the matrix inversion lemma; sides of shape (k, p)."""
    sides, signs = sides[signs != 0].double(), signs[signs != 0].double()
    core = torch.diag(lam / signs) + sides @ sides.T
    return ((g.double() - sides.T @ torch.linalg.solve(core, sides @ g.double())) / lam).to(g)


def newton(problem: Problem, row: Source, units: list[Unit], late: dict[str, Any] | None, lam: float) -> Tensor:
    """The removal step on the weights into ``units``, as one vector in the order of ``gathered``."""
    rows, g = incoming(problem, units), _full(problem, problem.gradient(fit(row)))
    own = gathered(g, rows)
    if late is None:
        return solve(own, own[None], torch.ones(1).to(own), lam)
    weights, n = problem.weights("model.*"), late["rows"]
    for name, weight in weights.items():
        weight.sub_(FAR * g[name])
    bent = gathered(add(_full(problem, problem.gradient(fit(row))), g, -1), rows)
    for name, weight in weights.items():
        weight.add_(FAR * g[name])
    sides = torch.stack([gathered(late["gradients"], rows), bent])
    far = torch.stack([gathered(late["weights"], rows).abs().sum(), FAR * own.abs().sum()])
    signs = torch.tensor([n / (n - 1), -1 / (n - 1)]).to(far) / far
    return solve(own, sides, signs.where(far > 0, 0), lam) / (n - 1)


def _full(problem: Problem, slope: Grads) -> Grads:
    return {n: slope.get(n, torch.zeros_like(w)) for n, w in problem.weights("model.*").items()}


def sequential(
    problem: Problem, choose: Choose, late: dict[str, Any] | None, lam: float, sd: float, skip: float
) -> None:
    """One row after another, in the order of their ids; a step that costs more than ``skip`` is taken back."""
    forget, held = problem.source("forget"), "valid" if "valid" in problem.sources else "retain"
    start, sign = problem.score(held), 1 if problem.task.higher else -1
    for place in np.argsort(forget.ids, kind="stable").tolist():
        row = forget.take([place])
        units = choose(problem, row)
        rows = incoming(problem, units)
        if not rows:
            continue
        step = newton(problem, row, units, late, lam)
        noise = torch.randn(len(step), generator=rng(problem, "noise", str(row.ids[0])), device=step.device)
        before = {n: problem.weights()[n].detach().clone() for n in rows}
        shift(problem, rows, step + sd * noise)
        if sign * (start - problem.score(held)) > skip:
            for name, value in before.items():
                problem.weights()[name].copy_(value)


@edit
def scrub(
    problem: Problem, copies: int, noise: float, lam: float, epsilon: float, delta: float, skip: float, fallback: bool
) -> None:
    """The method, as its docstring says."""
    retained = len(problem.source("retain"))
    if not fallback and "late_checkpoints" not in problem.records:
        raise BadInput(
            "lcodec needs the record 'late_checkpoints': make it from the training rows by "
            "oblivio.records.make('late_checkpoints', problem), or set fallback=True"
        )
    late = None if fallback else problem.records["late_checkpoints"]
    n = retained + len(problem.source("forget")) if late is None else late["rows"]
    sensitivity = 2 * SMOOTH * LIPSCHITZ**2 / (n**2 * lam**3)
    sd = sensitivity / epsilon * math.sqrt(2 * math.log(1.25 / delta))
    sequential(problem, lambda p, row: selected(p, row, copies, noise), late, lam, sd, skip)


@method(
    paper="Mehta et al., Deep Unlearning via Randomized Conditionally Independent Hessians, CVPR 2022",
    needs=("forget", "retain", "late_checkpoints"),
    tasks=("classification", "binary", "multilabel"),
    aliases=("l_codec", "l_foci"),
    passes=25,
    cost="for every forgotten row a pass over its copies, nearest neighbours of these for every unit and every unit "
    "chosen, and one pass over retain or valid",
)
def lcodec(
    copies: Annotated[int, Field(gt=2)] = 64,
    noise: Annotated[float, Field(gt=0)] = 0.1,
    lam: Annotated[float, Field(gt=0)] = 0.3,
    epsilon: Annotated[float, Field(gt=0)] = 0.1,
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.01,
    skip: Annotated[float, Field(gt=0)] = 0.05,
    fallback: bool = False,
) -> Stage:
    """For each forgotten row, find the units that its loss depends on and take a Newton step on the weights into them.

    Equation: w_S <- w_S + (H + lam I)^-1 grad_S CE(z) / (n - 1) + normal noise, S the weights into the Markov blanket
    of the loss under noise of size ``noise`` on the inputs, by rank-based conditional dependence over ``copies``;
    H = (n H_all - H_z) / (n - 1), each the outer product of a difference of gradients over the l1 distance of the two
    weights. ``fallback`` takes H = grad grad' and no 1 / (n - 1). The noise is that of the paper's (epsilon, delta)
    for smooth, strongly convex losses, which networks are not: no guarantee follows.
    Needs: forgotten rows with labels and real inputs; the record ``late_checkpoints``; retained rows, or ``valid``
    where there is one, on which a step that costs more than ``skip`` of the start's accuracy is taken back.
    Fails: time grows with rows times units times copies squared. copies and lam are for hundreds to thousands of rows
    (card: 1000 and 0.01, where the noise falls with n^2 lam^3). The paper's code takes one gradient twice for H_z.
    """
    return scrub(copies, noise, lam, epsilon, delta, skip, fallback)
