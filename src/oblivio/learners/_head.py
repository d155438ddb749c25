"""A ridge head in closed form: learned and unlearned by updates of the inverse Gram matrix, in either order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from oblivio.core.errors import BadInput

REFRESH = 256  # updates after which the inverse is made anew from the sums: round-off cannot pile up
LOST = 1e-4  # a removal with a squared pivot below this would lose four digits: it is solved from the sums instead


@dataclass(frozen=True)
class Head:
    """A ridge head; ``weights`` minimise ``|X W - T|^2 + gamma |W|^2`` over the rows added and not removed.

    Attributes:
        gram: ``X'X + gamma I``, shape (M, M).
        cross: ``X'T``, shape (M, C).
        inverse: of ``gram``.
        weights: ``inverse @ cross``.
        age: updates since ``inverse`` was made from ``gram``.
    """

    gram: Tensor
    cross: Tensor
    inverse: Tensor
    weights: Tensor
    age: int = 0

    @classmethod
    def empty(cls, features: int, outputs: int, gamma: float, dtype: torch.dtype = torch.float64) -> Head:
        """Nothing learned: all weights are zero."""
        eye, zero = torch.eye(features, dtype=dtype), torch.zeros(features, outputs, dtype=dtype)
        return cls(gamma * eye, zero, eye / gamma, zero.clone())

    def widened(self, outputs: int) -> Head:
        """With zero columns for new classes."""
        more = (0, max(outputs - self.cross.shape[1], 0))
        return replace(self, cross=F.pad(self.cross, more), weights=F.pad(self.weights, more))

    def keeping(self, used: Tensor) -> Head:
        """With the columns where ``used`` is False at exact zero, and without those of them that come last."""
        last = int(used.nonzero().max()) + 1
        cut = used[:last].to(self.cross.dtype)
        cross, weights = (value[:, :last].contiguous() * cut for value in (self.cross, self.weights))
        return replace(self, cross=cross, weights=weights)

    def added(self, x: Tensor, t: Tensor) -> Head:
        """With rows of features (k, M) and targets (k, C)."""
        return self._updated(x, t, 1)

    def removed(self, x: Tensor, t: Tensor) -> Head:
        """Without these rows. Raises BadInput where they cannot have been added."""
        return self._updated(x, t, -1)

    def _updated(self, x: Tensor, t: Tensor, sign: int) -> Head:
        if 4 * len(x) > x.shape[1] or self.age >= REFRESH:  # an update would cost what solving costs
            return self.resolved([(x, t)], sign)
        v = self.inverse @ x.T  # M, k
        factor, failed = torch.linalg.cholesky_ex(torch.eye(len(x), dtype=x.dtype) + sign * (x @ v))
        if failed or float(factor.diagonal().min()) ** 2 < LOST:
            return self.resolved([(x, t)], sign)
        u, e = (torch.linalg.solve_triangular(factor, b, upper=False) for b in (v.T, t - x @ self.weights))
        return Head(
            gram=torch.addmm(self.gram, x.T, x, alpha=sign),
            cross=torch.addmm(self.cross, x.T, t, alpha=sign),
            inverse=torch.addmm(self.inverse, u.T, u, alpha=-sign),  # symmetric as it is written
            weights=torch.addmm(self.weights, u.T, e, alpha=sign),  # u'e is the new inverse times x' times the error
            age=self.age + 1,
        )

    def resolved(self, blocks: Iterable[tuple[Tensor, Tensor]], sign: int) -> Head:
        """With blocks of rows added (1) or removed (-1), solved once from the sums. Raises BadInput as ``removed``."""
        gram, cross = self.gram.clone(), self.cross.clone()
        for x, t in blocks:
            gram.addmm_(x.T, x, alpha=sign)
            cross.addmm_(x.T, t, alpha=sign)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise BadInput(
                "without these rows the Gram matrix is no longer positive definite: they were never learned, or gamma "
                "is too small beside them"
            )
        inverse, weights = torch.cholesky_inverse(factor), torch.cholesky_solve(cross, factor)
        return Head(gram, cross, inverse.contiguous(), weights.contiguous())  # as they are read back from a file
