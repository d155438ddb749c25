"""Sources that are made of other sources of the problem, and find them there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids, Source
from oblivio.core.term import On

if TYPE_CHECKING:
    from oblivio.core.problem import Problem


class Derived(Source):
    """Rows of the sources ``of``, names or memories; which those are is known once it is used in a problem."""

    def __init__(self, of: tuple[On, ...], name: str) -> None:
        self.of, self.name = of, name

    def within(self, problem: Problem) -> Source:
        found = tuple(problem.source(on) for on in self.of)
        lengths: list[int] = [len(source) for source in found]  # a memory grows
        if found != self.__dict__.get("_found") or lengths != self.__dict__.get("_lengths"):
            self._found, self._lengths = found, lengths
            self._bind(problem)
        return self

    def _bind(self, problem: Problem) -> None:
        """Work out what depends on the sources that were found."""

    @property
    def found(self) -> tuple[Source, ...]:
        """The sources it is made of."""
        try:
            return self._found
        except AttributeError:
            raise BadInput(f"{self!r} has rows only in a problem; use it in a term or as over=") from None

    def __len__(self) -> int:
        return sum(map(len, self.found))

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether reading a row twice may differ in one of them."""
        return any(source.random for source in self.found)


class Through(Derived):
    """The rows of one source, ``of[0]``, as they are; what is drawn of them may differ."""

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the source."""
        return self.found[0].columns

    @property
    def ids(self) -> Ids:
        return self.found[0].ids

    @property
    def root(self) -> Any:
        return self.found[0].root

    def comparable(self, other: Source) -> bool:
        return self.found[0].comparable(other)

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        self.found[0].read(name, rows, into)

    def take(self, index: Any) -> Source:
        return self.found[0].take(index)


def groups(source: Source) -> Tensor:
    """The column ``group`` of all rows, shape (rows,). Raises BadInput where there is none."""
    if "group" not in source.columns:
        raise BadInput(
            f"source {source.name!r} has no column 'group'; give every row the number of its group, such as "
            "2 * target + attribute"
        )
    columns: list[Any] = [batch["group"] for batch in source.batches(4096)]
    return torch.cat(columns).cpu() if columns else torch.zeros(0, dtype=torch.long)
