"""Units of a network: what each answers to a row, and the weights that lead into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.core.grads import Grads
from oblivio.core.problem import Problem
from oblivio.core.source import Batch

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Unit:
    """One output of a linear layer or one filter of a convolution; ``layer`` is named as in ``model.head``."""

    layer: str
    index: int


def activations(problem: Problem, batch: Batch) -> tuple[Tensor, Tensor, list[Unit]]:
    """Outputs of the model, what every unit answers before its nonlinearity, shape (n, units), and the units.

    In evaluation mode, without a gradient. Positions (pixels, tokens) are averaged. Layers that are called more than
    once in a forward are left out: their units have no one answer.
    """
    found: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def listen(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, out: Tensor) -> None:
            calls[name] += 1
            out = out.movedim(-1, 1) if isinstance(module, nn.Linear) else out
            found[name] = out.flatten(2).mean(2) if out.dim() > 2 else out

        return module.register_forward_hook(hook)

    layers = {n: m for n, m in problem.nets.named_modules() if n.startswith("model") and isinstance(m, LAYERS)}
    handles = [listen(name, module) for name, module in layers.items()]
    try:
        with torch.no_grad(), problem.evaluating():
            problem.count(batch.source.name, len(batch))
            out = problem.task.forward(problem.nets, "model", batch)
    finally:
        for handle in handles:
            handle.remove()
    once = {name: value for name, value in found.items() if calls[name] == 1}
    return out, torch.cat([*once.values()], 1), [Unit(n, i) for n, v in once.items() for i in range(v.shape[1])]


def incoming(problem: Problem, units: Sequence[Unit]) -> dict[str, Tensor]:
    """The weights that lead into these units: the rows of each tensor, by its name. Biases are among them."""
    rows: dict[str, list[int]] = {}
    for unit in units:
        rows.setdefault(unit.layer, []).append(unit.index)
    names = problem.weights()
    return {
        f"{layer}.{kind}": torch.tensor(sorted(set(index)))
        for layer, index in rows.items()
        for kind in ("weight", "bias")
        if f"{layer}.{kind}" in names
    }


def gathered(values: Grads, rows: dict[str, Tensor]) -> Tensor:
    """The chosen rows of tensors, as one vector."""
    return torch.cat([values[name][index.to(values[name].device)].flatten() for name, index in rows.items()])


def shift(problem: Problem, rows: dict[str, Tensor], by: Tensor) -> None:
    """Add a vector in the order of ``gathered`` to the chosen rows of the weights."""
    weights = problem.weights()
    pieces = by.split([weights[n][i.to(weights[n].device)].numel() for n, i in rows.items()])
    for (name, index), piece in zip(rows.items(), pieces, strict=True):
        weight = weights[name]
        weight.data[index.to(weight.device)] += piece.view(len(index), *weight.shape[1:])
