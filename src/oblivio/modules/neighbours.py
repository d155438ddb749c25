"""Neighbours in place of a head: a row is of the class whose remembered feature vectors are nearest."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.surgery import Wrap, surgery


class Remembered(nn.Module):
    """Feature vectors of one class, (m, d), and the units (d,) that were stable when it was learned."""

    vectors: Tensor
    valid: Tensor
    units: Tensor

    def __init__(self, label: int, turn: int, m: int, d: int) -> None:
        super().__init__()
        self.label, self.turn = label, turn
        self.register_buffer("vectors", torch.zeros(m, d))
        self.register_buffer("valid", torch.ones(m, dtype=torch.bool))
        self.register_buffer("units", torch.zeros(d, dtype=torch.bool))


class Neighbours(Wrap):
    """A chain of linear layers without its head, served by the nearest of the vectors that are remembered.

    ``early`` ends behind the first hidden layer, where activations are stored; ``late`` gives the features.
    """

    def __init__(self, net: nn.Module, k: int) -> None:
        super().__init__()
        leaves = _leaves(net)
        cut = 1 + next(i for i, leaf in enumerate(leaves) if isinstance(leaf, nn.ReLU))
        self.early, self.late = nn.Sequential(*leaves[:cut]), nn.Sequential(*leaves[cut:-1])
        self.outputs, self.k = leaves[-1].out_features, k
        self.remembered = nn.ModuleList()

    def features(self, x: Tensor) -> Tensor:
        """What the last hidden layer answers, shape (n, d)."""
        out: Tensor = self.late(self.early(x))
        return out

    def layers(self) -> dict[str, nn.Linear]:
        """The hidden layers in order, by name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, nn.Linear)}

    def answers(self, x: Tensor) -> dict[str, Tensor]:
        """What the units of every hidden layer answer, shape (n, units)."""
        found, layer = {}, ""
        for part, modules in (("early", self.early), ("late", self.late)):
            for name, module in modules.named_children():
                x = module(x)
                if isinstance(module, nn.Linear):
                    layer = f"{part}.{name}"
                elif isinstance(module, nn.ReLU):
                    found[layer] = x
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Votes of the ``k`` nearest for every class, (n, outputs), and half the similarity of its nearest.

        Similarity to a vector is the cosine over the units that were stable when its class was learned.
        """
        z = self.features(x)
        out = z.new_zeros(len(x), self.outputs)
        entries = [entry for entry in self.remembered if isinstance(entry, Remembered) and entry.valid.any()]
        if not entries:
            return out
        likeness = torch.cat([_cosine(z * entry.units, entry.vectors[entry.valid]) for entry in entries], 1)
        labels = torch.cat([entry.valid.new_full((int(entry.valid.sum()),), entry.label, dtype=torch.long)
                            for entry in entries])  # fmt: skip
        nearest = likeness.topk(min(self.k, likeness.shape[1]), 1).indices
        out.scatter_add_(1, labels[nearest], torch.ones_like(nearest, dtype=out.dtype))
        best = torch.zeros_like(out).scatter_reduce_(1, labels.expand(len(x), -1), likeness, "amax")
        return out + best / 2


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def _leaves(net: nn.Module) -> list[Any]:
    """The modules of a chain. Raises BadInput for one that is not Flatten, Linear, ReLU, ..., Linear."""
    leaves = [module for module in net.modules() if not isinstance(module, nn.Sequential)]
    inner = [leaf for leaf in leaves if not isinstance(leaf, (nn.Flatten, nn.Identity))]
    kinds = [nn.Linear, nn.ReLU] * (len(inner) // 2) + [nn.Linear]
    if len(inner) < 5 or len(inner) != len(kinds) or not all(map(isinstance, inner, kinds)):
        raise BadInput(
            "units are told apart in a chain of linear layers with ReLU between them, at least two of them "
            "hidden; networks.build('mlp', ...) makes one"
        )
    return leaves


@surgery
def host_neighbours(nets: MutableMapping[str, nn.Module], *, k: int) -> None:
    """Take the head off the model and serve neighbours in its place: the forward is another one."""
    nets["model"] = Neighbours(nets["model"], k)


@surgery
def remember(nets: MutableMapping[str, nn.Module], *, label: int, turn: int, m: int) -> None:
    """Room for ``m`` vectors of a class of an experience, which votes from now on: the forward is another one."""
    model = hosted(nets["model"])
    d = list(model.layers().values())[-1].out_features
    model.remembered.append(Remembered(label, turn, m, d))


def hosted(model: nn.Module) -> Neighbours:
    """The model, which ``host_neighbours`` has made."""
    assert isinstance(model, Neighbours)
    return model
