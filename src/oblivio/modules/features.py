"""The features of a model, where no step is at hand: before a stage begins, or when training is over."""

from __future__ import annotations

import torch
from torch import Tensor

from oblivio.core.problem import Nets, Problem
from oblivio.core.source import Batch
from oblivio.core.term import On


def features(problem: Problem, on: On, at: str | None = None) -> Tensor:
    """The inputs of the problem's feature layer over all rows of a source, in evaluation mode: (rows, width).

    ``at``: the snapshot whose features are meant; default: the present weights.
    """
    found: list[Tensor] = []
    layer = problem.nets.get_submodule(problem.features)
    handle = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].flatten(1)))

    def look(nets: Nets, batch: Batch) -> Tensor:
        found.clear()
        if at is None:
            problem.task.forward(nets, "model", batch)
        else:
            problem.at(at, lambda then: problem.task.forward(then, "model", batch))
        return found[-1]

    try:
        with torch.no_grad():
            return problem.tabulate(on, look)
    finally:
        handle.remove()
