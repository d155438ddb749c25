"""Rows of a source drawn with replacement, some more often than others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator
from oblivio.core.source import Batch, Source
from oblivio.sources.derived import Through, groups

if TYPE_CHECKING:
    from oblivio.core.problem import Problem
    from oblivio.core.step import Step


class Weighted(Through):
    """The source ``of``, each row drawn in proportion to its weight. An epoch is as long as before.

    It has the name of that source, in whose place it stands: one objective cannot read both. Passes over all rows in
    order (scores, frozen outputs) see every row once.

    Args:
        of: name of the source.
        by: ``by(problem, source)`` gives the weights, shape (rows,), none below 0.
    """

    def __init__(self, of: str, by: Callable[[Problem, Source], Tensor]) -> None:
        super().__init__((of,), of)
        self.by = by

    def _bind(self, problem: Problem) -> None:
        self._sums = self.by(problem, self.found[0]).double().cumsum(0)

    def draw(self, n: int, step: Step) -> Batch:
        """Independent draws at every step; batches are as large as those of an epoch without weights."""
        i = step.t % -(-len(self) // n)
        g = generator("weighted", step.problem.seed, step.problem.turn, step.place, self.name, step.t)
        points = torch.rand(min(n, len(self) - i * n), generator=g, dtype=torch.double) * self._sums[-1]
        return self.batch(torch.searchsorted(self._sums, points, right=True).clamp(max=len(self) - 1))

    def __repr__(self) -> str:
        return f"Weighted({self.name!r}, by={self.by!r})"


@dataclass(frozen=True)
class group_ratio:
    """Weights count before / count after of a row's group, where the source ``removed`` went from the others.

    In expectation every group is then drawn as often as it stood in both together. Raises BadInput for rows without a
    column ``group``, and for a group of which no row is left.
    """

    removed: str = "forget"

    def __call__(self, problem: Problem, rest: Source) -> Tensor:
        kept, gone = groups(rest), groups(problem.source(self.removed))
        values, index = torch.cat([kept, gone]).unique(return_inverse=True)
        before, after = (i.bincount(minlength=len(values)) for i in (index, index[: len(kept)]))
        if not bool(after.all()):
            raise BadInput(
                f"no row of group {values[after == 0].tolist()} is left in {rest.name!r}, so no weight can bring it "
                "back; keep some of its rows"
            )
        ratio: Tensor = before / after
        return ratio[index[: len(kept)]]
