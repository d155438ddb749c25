"""Take out single value vectors of feed-forward networks: what one unit adds is zero, or noise is added to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.plan import edit
from oblivio.core.problem import Problem, rng
from oblivio.networks.language.parts import mlp_outputs


def columns(model: nn.Module, block: int) -> Tensor:
    """The value vectors of a block, a row each, (units, width): a view of the last matrix of its feed-forward network.

    Raises BadInput where that is no plain matrix, as with experts.
    """
    name = mlp_outputs(model)[block]
    layer, weight = model.get_submodule(name.rpartition(".")[0]), model.get_parameter(name)
    if weight.dim() != 2:
        raise BadInput(f"{name} has the shape {tuple(weight.shape)}; value vectors are those of one matrix")
    return weight if type(layer).__name__ == "Conv1D" else weight.T  # GPT-2 keeps its matrices the other way round


@edit
def ablate(problem: Problem, vectors: Sequence[tuple[int, int]], noise: float | None = None) -> None:
    """Set value vectors to zero, or add Gaussian noise of deviation ``noise`` to them (the paper's is 0.1).

    This is Needle (Hong et al., 2024). ``vectors``: block and unit of each, as ``audits.language.concepts.rank`` finds
    them.
    """
    for block, unit in vectors:
        row = columns(problem.model, block)[unit]
        if noise is None:
            row.zero_()
        else:
            row += noise * torch.randn(row.shape, generator=rng(problem, "ablate", block, unit), device=row.device)
