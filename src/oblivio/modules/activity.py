"""What the units of a chain answer: the values that the next layer reads, in means over rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.core.problem import Problem
from oblivio.core.source import Batch
from oblivio.core.surgery import Networks
from oblivio.core.term import On
from oblivio.modules.chain import Link


def answers(problem: Problem, batch: Batch, chain: Sequence[Link]) -> dict[str, Tensor]:
    """By layer what its units answer to every row, shape (rows, units); places of an image are averaged."""
    found: dict[str, Tensor] = {}

    def listen(link: Link) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[link.layer] = inputs[0].detach().reshape(len(inputs[0]), link.units, -1).mean(2)

        return problem.model.get_submodule(link.next).register_forward_pre_hook(hook)

    handles = [listen(link) for link in chain]
    try:
        with torch.no_grad():
            problem.task.forward(problem.nets, "model", batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def mean_answers(problem: Problem, on: On, chain: Sequence[Link]) -> dict[str, Tensor]:
    """By layer the mean of what each unit answers over a source, shape (units,); one pass, in evaluation mode."""

    def each(_: Networks, batch: Batch) -> Tensor:
        found = answers(problem, batch, chain)
        return torch.cat([found[link.layer] for link in chain], 1)

    means = problem.tabulate(on, each).double().mean(0).float().split([link.units for link in chain])
    return {link.layer: mean for link, mean in zip(chain, means, strict=True)}


def columns(units: Tensor, width: int) -> Tensor:
    """A mask of the units as one of the ``width`` columns that the next layer reads: several each after ``Flatten``."""
    return units.repeat_interleave(width // len(units))
