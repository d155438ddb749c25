"""Exemplars: a memory that is filled when an experience ends, with equal shares of every group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.problem import rng
from oblivio.core.source import Source
from oblivio.sources.memory import Memory

if TYPE_CHECKING:
    from oblivio.core.problem import Problem

Pick: TypeAlias = "Callable[[Problem, Source], Tensor]"  # the places of rows of one group, the best first


class Exemplars(Memory):
    """Equal shares of at most ``size`` rows, one for every experience (``by="turn"``) or every class (``by="y"``).

    When a group comes, the shares of the others become smaller: each keeps its first rows.

    Args:
        size: rows at most.
        of: the source that is chosen from.
        by: ``turn`` or the name of a column of whole numbers.
        pick: which rows of a group come first; default: random ones.
        name: batch-norm statistics move with passes over ``replay``.
        batch: rows drawn a step; None: as many as the stage's batch.

    Raises BadInput at the end of an experience where there are more groups than places.
    """

    def __init__(
        self,
        size: int,
        of: str = "new",
        by: str = "turn",
        pick: Pick | None = None,
        name: str = "replay",
        batch: int | None = None,
    ) -> None:
        super().__init__(size, name, batch)
        self.of, self.by, self.pick = of, by, pick

    @property
    def groups(self) -> Tensor:
        """The group of every row that is held, shape (rows,)."""
        return self.state["rows"][self.by][: len(self)] if len(self) else torch.zeros(0, dtype=torch.long)

    def consolidate(self, problem: Problem) -> None:
        source = problem.source(self.of)
        fresh = self._of(source, problem)
        coming = fresh.unique().tolist()
        share = self.share({*self.groups.tolist(), *coming})
        if len(self):
            self.keep(_first_of_each(self.groups, share, without=coming))
        for group in coming:
            self._add(problem, source.take((fresh == group).nonzero().flatten().cpu()), share)

    def share(self, groups: set[int]) -> int:
        """Rows a group. Raises BadInput where that is none."""
        share = self.capacity // len(groups)
        if not share:
            what = "experiences" if self.by == "turn" else f"values of {self.by}"
            raise BadInput(f"{self.name}: {self.capacity} rows cannot hold {len(groups)} {what}; give a size of "
                           f"{len(groups)} or more")  # fmt: skip
        return share

    def _of(self, source: Source, problem: Problem) -> Tensor:
        if self.by == "turn":
            return torch.full((len(source),), problem.turn)
        return torch.cat([batch[self.by] for batch in source.batches(4096)]).long()

    def _add(self, problem: Problem, rows: Source, share: int) -> None:
        order = self._ranked(problem, rows)[:share]
        chosen = rows.batch(order)
        columns: dict[str, Any] = {n: chosen[n] for n in rows.columns if isinstance(chosen[n], Tensor)}
        if self.by == "turn":
            columns["turn"] = torch.full((len(order),), problem.turn)
        self.put(torch.arange(len(self), len(self) + len(order)), chosen["id"], columns)

    def _ranked(self, problem: Problem, rows: Source) -> Tensor:
        if self.pick is not None:
            return self.pick(problem, rows)
        return torch.randperm(len(rows), generator=rng(problem, self.name, "pick"), device=problem.team.device).cpu()

    def __repr__(self) -> str:
        how = "" if self.pick is None else f", pick={self.pick.__name__}"
        drawn = "" if self.size is None else f", batch={self.size}"
        return f"Exemplars({self.capacity}, of={self.of!r}, by={self.by!r}{how}, name={self.name!r}{drawn})"


def _first_of_each(groups: Tensor, share: int, without: list[int]) -> Tensor:
    """The places of the first ``share`` rows of every group but those."""
    kept = [g for g in groups.unique().tolist() if g not in without]
    chosen = [(groups == g).nonzero().flatten()[:share] for g in kept]
    return torch.cat(chosen).sort().values if chosen else torch.zeros(0, dtype=torch.long)
