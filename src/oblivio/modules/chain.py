"""Chains: nested Sequentials of linear layers and convolutions, and which weights lead into and out of each unit."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from oblivio.core.errors import BadInput

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
               nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid)  # fmt: skip
UNITWISE = (*NORMS, *ACTIVATIONS, nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
            nn.AlphaDropout, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
            nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)  # fmt: skip


@dataclass(frozen=True)
class Link:
    """A hidden layer and what follows it: dotted names within the model.

    ``units`` are the outputs of a linear layer or the filters of a convolution; ``norms`` and ``activations`` stand
    between ``layer`` and ``next``, the layer that reads the units.
    """

    layer: str
    units: int
    norms: list[str]
    activations: list[str]
    next: str


def links(model: nn.Module) -> list[Link]:
    """Every hidden layer of a chain, in order.

    A chain is a ``nn.Sequential``, nested as deep as you like. Between its linear layers and convolutions may stand
    activations, batch norm, dropout, pooling and ``Flatten``: what keeps each unit apart from the others. Before the
    first and after the last layer anything may stand.

    Raises:
        BadInput: another module between the layers, a grouped or a shared layer, or no hidden layer.
    """
    leaves = list(_leaves(model))
    places = [i for i, (_, module) in enumerate(leaves) if isinstance(module, LAYERS)]
    if len(places) < 2:
        raise BadInput(
            f"{type(model).__name__} is no chain with a hidden layer: it needs a Sequential of at least two linear "
            "layers or convolutions (networks.build('mlp', ...) makes one)"
        )
    _sound([leaves[i] for i in range(places[0], places[-1] + 1)])
    return [_link(leaves[a : b + 1]) for a, b in itertools.pairwise(places)]


def _leaves(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, nn.Sequential):
        yield name, module
        return
    for key, child in module._modules.items():  # named_children() leaves out what comes a second time
        if child is not None:
            yield from _leaves(child, f"{name}.{key}" if name else key)


def _sound(leaves: list[tuple[str, nn.Module]]) -> None:
    """Raise BadInput where a unit's weights could not be told."""
    often = Counter(id(module) for _, module in leaves if isinstance(module, LAYERS))
    for name, module in leaves:
        if not isinstance(module, (*LAYERS, *UNITWISE)):
            raise BadInput(
                f"{name} ({type(module).__name__}) stands between layers, and whether it keeps the units apart is not "
                "known; there may be activations, batch norm, dropout, pooling and Flatten"
            )
        if getattr(module, "groups", 1) != 1:
            raise BadInput(f"{name} is a grouped convolution, which reads some of the units only; leave out groups=")
        if often[id(module)] > 1:
            raise BadInput(f"{name} stands in the chain more than once: its units have no one answer")


def _link(leaves: list[tuple[str, nn.Module]]) -> Link:
    (layer, module), *between, (following, _) = leaves
    units = module.out_features if isinstance(module, nn.Linear) else module.out_channels
    assert isinstance(units, int)
    norms, activations = ([n for n, m in between if isinstance(m, kinds)] for kinds in (NORMS, ACTIVATIONS))
    return Link(layer, units, norms, activations, following)
