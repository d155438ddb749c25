"""A small source repeated until it is about as long as another."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oblivio.core.source import Ids
from oblivio.core.term import On, source_name
from oblivio.sources.derived import Derived


class Repeated(Derived):
    """The rows of ``small``, ``max(1, len(large) // len(small))`` times one after another; none where it is empty."""

    def __init__(self, small: On, large: On) -> None:
        super().__init__((small, large), source_name(small))

    def __len__(self) -> int:
        small, large = map(len, self.found)
        return small * max(1, large // small) if small else 0

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of ``small``."""
        return self.found[0].columns

    @property
    def ids(self) -> Ids:
        ids = self.found[0].ids
        return ids.repeat(len(self) // max(len(ids), 1)).reshape(len(ids), -1).T.flatten()

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        self.found[0].read(name, rows % len(self.found[0]), into)

    def __repr__(self) -> str:
        return f"Repeated({', '.join(map(repr, self.of))})"
