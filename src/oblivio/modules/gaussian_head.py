"""A generative head: a Gaussian a class over an embedding, its mean known by a conjugate posterior, not by descent."""

from __future__ import annotations

import math
from collections.abc import MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.seeds import generator
from oblivio.core.surgery import surgery
from oblivio.modules.drawn import drawn_linear
from oblivio.modules.growing import GrownLinear
from oblivio.modules.heads import linear_layer, put_layer
from oblivio.modules.masked import MASKED

PRIOR = 1.0  # the precision of a class mean before any row, around 0


class ClassStatistics(nn.Module):
    """Of each class the natural mean ``q``, the precision ``l`` of its mean, and the Dirichlet count ``a``."""

    q: Tensor
    l: Tensor  # noqa: E741 (the paper's name)
    a: Tensor

    def __init__(self, classes: int, width: int, alpha: float) -> None:
        super().__init__()
        self.register_buffer("q", torch.zeros(classes, width))
        self.register_buffer("l", torch.full((classes,), PRIOR))
        self.register_buffer("a", torch.full((classes,), alpha))


class GaussianHead(GrownLinear):
    """``(n, width)`` to ``log p(z, k)``, shape (n, classes): z ~ N(q_k / l_k, 1 / l_k + s), k ~ a_k / sum a.

    It has no weights: ``add`` counts rows in, a descent only reads. A class with ``a`` = 0 is not served. It grows as
    any head does, hence the base class.

    Args:
        width: of the embedding.
        classes: how many.
        s: the variance of rows around the mean of their class, in every direction.
        alpha: Dirichlet count of a class before any row.
    """

    def __init__(self, width: int, classes: int, s: float, alpha: float) -> None:
        nn.Linear.__init__(self, width, classes, bias=False, device="meta")
        self.register_parameter("weight", None)
        self.s, self.alpha = s, alpha
        self.blocks = nn.ModuleList([ClassStatistics(classes, width, alpha)])

    def grow(self, by: int, seed: int) -> None:
        """Add ``by`` classes of which nothing is known; ``seed`` has no part in it."""
        self.blocks.append(ClassStatistics(by, self.in_features, self.alpha).to(self.q))
        self.out_features += by

    def reset_parameters(self) -> None:
        """As before any row."""
        if "blocks" in self._modules:  # torch's constructor calls it too
            self.clear(self.alpha)

    @property
    def q(self) -> Tensor:
        """Natural means, shape (classes, width)."""
        return torch.cat([block.q for block in self._all])

    @property
    def l(self) -> Tensor:  # noqa: E743
        """Precisions of the means, shape (classes,)."""
        return torch.cat([block.l for block in self._all])

    @property
    def a(self) -> Tensor:
        """Dirichlet counts, shape (classes,)."""
        return torch.cat([block.a for block in self._all])

    @property
    def _all(self) -> list[ClassStatistics]:
        return [block for block in self.blocks if isinstance(block, ClassStatistics)]

    def forward(self, x: Tensor) -> Tensor:
        q, l, a = self.q, self.l, self.a  # noqa: E741
        v, width = 1 / l + self.s, x.shape[-1]
        far = (x[:, None] - q / l[:, None]).square().sum(-1)
        density = -0.5 * (far / v + width * v.log() + width * math.log(2 * math.pi))
        return torch.where(a > 0, density + (a / a.sum()).log(), MASKED)

    def add(self, z: Tensor, y: Tensor, decay: float = 1.0) -> None:
        """Count rows in: embeddings (n, width) with classes (n,); what was known before fades by ``decay``."""
        own = F.one_hot(y.long(), self.out_features).to(z)
        count = own.sum(0)
        q = decay * self.q + own.T @ z / self.s
        l = PRIOR + decay * (self.l - PRIOR) + count / self.s  # noqa: E741
        self._write(q, l, self.a + count)

    def clear(self, alpha: float) -> None:
        """Nothing is known of any class, and each has the count ``alpha``."""
        self._write(torch.zeros_like(self.q), torch.full_like(self.l, PRIOR), torch.full_like(self.a, alpha))

    def _write(self, q: Tensor, l: Tensor, a: Tensor) -> None:  # noqa: E741
        start = 0
        for block in self._all:
            end = start + len(block.l)
            block.q.copy_(q[start:end])
            block.l.copy_(l[start:end])
            block.a.copy_(a[start:end])
            start = end


@surgery
def gaussian_head(
    nets: MutableMapping[str, nn.Module], *, layer: str, dim: int, s: float, alpha: float, seed: int
) -> None:
    """Put a linear embedding to ``dim`` and a Gaussian a class in the place of the linear ``layer``.

    What the layer computed is gone; it has as many outputs as before.
    """
    head, rng = linear_layer(nets["model"], layer), generator(seed, "gaussian_head")
    embedding = drawn_linear(head.in_features, dim, rng)
    gaussians = GaussianHead(dim, head.out_features, s, alpha)
    put_layer(nets, layer, nn.Sequential(embedding, gaussians).to(head.weight).train(head.training))
