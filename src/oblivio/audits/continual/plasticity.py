"""Plasticity probes: whether a network that has learned much can still learn.

Dead and dormant units, rank of the features, size of the weights, and what decides: accuracy on a task that is new to
it, after a fixed number of steps. All work on copies or in evaluation mode; nothing of the problem changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Source
from oblivio.core.surgery import Networks
from oblivio.core.term import On
from oblivio.tasks.classification import Classification
from oblivio.tasks.incremental import Incremental
from oblivio.terms import fit

RECTIFIERS = frozenset(
    {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.leaky_relu, F.gelu, F.silu, F.elu, F.celu,
     F.mish, F.hardswish, F.softplus}
)  # fmt: skip
DORMANT = 0.025  # of the layer's mean activity; Sokar and others, 2023
ROWS = 512
SMALL = 1e-12


class Activity(TorchFunctionMode):
    """While active, listens to every rectifier, as a module or as a function.

    Of every unit (a channel of an image, a coordinate of a vector) it keeps the largest output and the sum of sizes,
    over rows and positions. Layers are told apart by the order of their calls in a forward: call ``begin`` before each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest: list[Tensor] = []
        self.total: list[Tensor] = []
        self._call = 0

    def begin(self) -> None:
        """A forward begins."""
        self._call = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call ``func``, and note what a rectifier gave."""
        out = func(*args, **(kwargs or {}))
        if func in RECTIFIERS and isinstance(out, Tensor) and out.dim() > 1:
            self._note(out.detach())
        return out

    def _note(self, out: Tensor) -> None:
        units = out.movedim(1 if out.dim() != 3 else 2, -1).flatten(0, -2)  # sequences have their units last
        if self._call == len(self.largest):
            self.largest.append(torch.full((units.shape[1],), -torch.inf, device=out.device))
            self.total.append(torch.zeros(units.shape[1], device=out.device))
        self.largest[self._call] = torch.maximum(self.largest[self._call], units.amax(0))
        self.total[self._call] += units.abs().sum(0)
        self._call += 1


def activity(problem: Problem, on: On, size: int = ROWS) -> Activity:
    """What every rectifier of the model gives on all rows of a source, in evaluation mode.

    Raises:
        BadInput: the model has no rectifier, so no unit can be dead.
    """
    found = Activity()
    with problem.uncounted(), torch.no_grad(), problem.evaluating(), found:
        for batch in problem.source(on).batches(size):
            found.begin()
            problem.task.forward(problem.nets, "model", batch)
    if not found.largest:
        raise BadInput("the model has no ReLU or its like, so none of its units can be dead")
    return found


def dead(found: Activity) -> float:
    """The share of units that are above 0 on no row and no position."""
    return float(torch.cat([each <= 0 for each in found.largest]).double().mean())


def dormant(found: Activity, tau: float = DORMANT) -> float:
    """The share of units whose mean size is at most ``tau`` of their layer's mean (Sokar and others, 2023)."""
    return float(torch.cat([total <= tau * total.mean() for total in found.total]).double().mean())


def effective_rank(features: Tensor) -> float:
    """The exp of the entropy of the singular values divided by their sum (Roy and Vetterli, 2007), of a matrix (n, d).

    Between 1 and min(n, d); rows are not centred. 0 for a matrix of zeros.

    >>> round(effective_rank(torch.eye(4)), 6)
    4.0
    """
    sizes = torch.linalg.svdvals(features.double())
    if float(sizes.sum()) <= SMALL:
        return 0.0
    p = sizes / sizes.sum()
    return float(torch.exp(-(p * p.clamp(min=SMALL).log()).sum()))


def stable_rank(matrix: Tensor) -> float:
    """||A||_F^2 / ||A||_2^2: between 1 and the rank; 0 for a matrix of zeros."""
    squares = torch.linalg.svdvals(matrix.double()).square()
    return float(squares.sum() / squares.max()) if float(squares.max()) > SMALL else 0.0


def features(problem: Problem, on: On, size: int = ROWS) -> Tensor:
    """The input of the feature layer (``problem.features``) on all rows, shape (n, d); positions are flattened."""
    layer, seen = problem.nets.get_submodule(problem.features), []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().flatten(1).cpu()))
    try:
        with problem.uncounted(), torch.no_grad(), problem.evaluating():
            for batch in problem.source(on).batches(size):
                problem.task.forward(problem.nets, "model", batch)
    finally:
        handle.remove()
    return torch.cat(seen)


def weight_size(problem: Problem) -> float:
    """The mean of |w| over the weights of the model that are matrices or filters; biases and scales are left out."""
    found = [w.detach().abs().flatten() for w in problem.weights("model.*").values() if w.dim() > 1]
    if not found:
        raise BadInput("the model has no weights that are matrices")
    return float(torch.cat([each.double() for each in found]).mean())


def mean_stable_rank(problem: Problem) -> float:
    """The mean over weight matrices and filters (flattened to matrices) of their stable rank."""
    found = [stable_rank(w.detach().flatten(1)) for w in problem.weights("model.*").values() if w.dim() > 1]
    if not found:
        raise BadInput("the model has no weights that are matrices")
    return sum(found) / len(found)


def fresh_task(
    problem: Problem, train: Source, test: Source, *, steps: int = 100, lr: float = 0.05, batch: int = 32
) -> float:
    """The figure on ``test`` after a copy of the model learned ``train`` for a fixed number of plain SGD steps.

    All outputs count, whatever experiences came before. Hold it against that of a new network of the same form, at the
    same settings: what is missing is the plasticity that was lost.
    """
    copy = problem.copy()
    copy.turn = problem.turn + 1
    copy.task = Classification() if isinstance(problem.task, Incremental) and not _told(problem.nets) else problem.task
    copy.sources = {"fresh": copy._named("fresh", train)}
    plan = Descent(fit("fresh"), over="fresh", steps=steps, batch=batch, opt=sgd(lr), moves=("fresh",))
    Run(plan, copy).go()
    return copy.score(test)


def _told(nets: Networks) -> bool:
    """Whether the model is given the task of every row, which only its own kind of task does."""
    return bool(getattr(nets["model"], "takes_task", False))


def probe(problem: Problem, on: On) -> dict[str, float]:
    """Every probe that needs rows alone: ``dead``, ``dormant``, ``effective_rank``, ``weight_size``, ``stable_rank``.

    Those that do not apply to the model are left out.
    """
    found: dict[str, float] = {}

    def tried(names: Sequence[str], make: Callable[[], Sequence[float]]) -> None:
        try:
            found.update(zip(names, make(), strict=True))
        except BadInput:
            return  # such as dead units of a model without rectifiers

    def of_units() -> list[float]:
        seen = activity(problem, on)
        return [dead(seen), dormant(seen)]

    tried(("dead", "dormant"), of_units)
    tried(("effective_rank",), lambda: [effective_rank(features(problem, on))])
    tried(("weight_size", "stable_rank"), lambda: [weight_size(problem), mean_stable_rank(problem)])
    return found
