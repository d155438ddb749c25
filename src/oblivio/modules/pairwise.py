"""The pairwise layer: logits from products of pairs of features of which only the strongest are not zero."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator
from oblivio.core.surgery import surgery
from oblivio.modules.ash import drawn
from oblivio.modules.chain import links
from oblivio.modules.heads import put_layer


class Winners(nn.Module):
    """k winners take all: ``relu(h - v)``, v the floor(p n)-th largest of a sample's n entries.

    In narrow layers v is the third largest, so that two winners are left to make a pair.
    """

    def __init__(self, p: float = 0.15) -> None:
        super().__init__()
        self.p = p

    def forward(self, h: Tensor) -> Tensor:
        """Shape in is shape out; the first dimension are the samples."""
        flat = h.flatten(1)
        v = flat.topk(min(flat.shape[1], max(3, int(self.p * flat.shape[1])))).values[:, -1:]
        return (flat - v).relu().view_as(h)

    def extra_repr(self) -> str:
        """The setting."""
        return f"p={self.p:g}"


class Pairwise(nn.Module):
    """``logits[c] = sum_q w[q, c] a[i[q, c]] a[j[q, c]]`` over fixed random pairs i > j of features.

    Args:
        features: how many there are; at least 2.
        outputs: how many logits.
        m: products, cut down to a multiple of ``outputs`` and to one a pair and output: more would be the same product
            again. No pair comes twice before each has come once.
        rng: draws the pairs and the weights, N(0, 0.001^2). The pairs are buffers: constants, saved with the model.
    """

    i: Tensor
    j: Tensor

    def __init__(self, features: int, outputs: int, m: int, rng: torch.Generator) -> None:
        super().__init__()
        if features < 2 or m < outputs:
            raise BadInput(f"a pairwise layer needs two features and a product an output, not {features} and m={m}")
        pairs = torch.tril_indices(features, features, -1)
        rows = min(m // outputs, pairs.shape[1])
        rounds = -(-rows * outputs // pairs.shape[1])
        chosen = torch.cat([torch.randperm(pairs.shape[1], generator=rng) for _ in range(rounds)])[: rows * outputs]
        self.register_buffer("i", pairs[0, chosen])
        self.register_buffer("j", pairs[1, chosen])
        self.weight = nn.Parameter(0.001 * torch.randn(rows, outputs, generator=rng))

    def forward(self, a: Tensor) -> Tensor:
        """``(n, features)`` to ``(n, outputs)``."""
        z = a.index_select(1, self.i) * a.index_select(1, self.j)
        return (z.view(len(a), *self.weight.shape) * self.weight).sum(1)


@surgery
def make_pairwise(nets: MutableMapping[str, nn.Module], *, m: int, p: float, seed: int) -> None:
    """Put winners in the place of a chain's last activation, and a pairwise layer in that of its head.

    It changes the function: the hidden linear layer before the head loses its bias, and its weights are drawn anew,
    N(0, 2 / fan_in), from ``seed``; a convolution there keeps its own. Raises BadInput for a model that is no chain,
    has no activation before the head, or a head that is not linear.
    """
    model, link = nets["model"], links(nets["model"])[-1]
    head, hidden = model.get_submodule(link.next), model.get_submodule(link.layer)
    if not link.activations or not isinstance(head, nn.Linear):
        raise BadInput(f"{link.next} is no linear head behind an activation, for pairs of winners to take their place")
    first, *others = link.activations
    model.set_submodule(first, Winners(p).train(model.training))
    for name in others:
        model.set_submodule(name, nn.Identity())
    if isinstance(hidden, nn.Linear):
        put_layer(nets, link.layer, drawn(hidden, nn.Linear, seed, link.layer))
    made = Pairwise(head.in_features, head.out_features, m, generator(seed, link.next))
    model.set_submodule(link.next, made.to(head.weight).train(model.training))
