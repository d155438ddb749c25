"""Rows of several sources shuffled together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids, Source
from oblivio.core.term import On, source_name
from oblivio.sources.derived import Derived

if TYPE_CHECKING:
    from oblivio.core.problem import Problem


class Joined(Derived):
    """The rows of the sources ``of`` as one; the column ``part`` says of each which it comes from: 0, 1, ...

    It has the columns that all of them have, and is called after them (``forget+retain``), so that its passes move no
    batch-norm statistics unless a Descent names it in ``moves``. A memory that is still empty adds nothing.
    """

    def __init__(self, *of: On) -> None:
        super().__init__(of, "+".join(map(source_name, of)))

    def _bind(self, problem: Problem) -> None:
        self._starts, self._device = torch.tensor([0, *map(len, self.found)]).cumsum(0), problem.team.device

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those that all have, and ``part``."""
        first, *others = self._filled
        return (*(name for name in first.columns if all(name in other.columns for other in others)), "part")

    @property
    def ids(self) -> Ids:
        return np.concatenate([source.ids for source in self._filled])

    @property
    def _filled(self) -> list[Source]:
        """Those with rows: an empty memory knows neither columns nor the kind of its ids."""
        return [source for source in self.found if len(source)] or list(self.found)

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        part = torch.searchsorted(self._starts, rows, right=True) - 1
        if name == "part":
            into[name] = part.to(self._device)
            return
        if name not in (*self.columns, "id"):
            raise BadInput(f"source {self.name!r} has no column {name!r}; it has {', '.join(self.columns)}")
        values, places = [], []
        for i, source in enumerate(self.found):
            at = (part == i).nonzero().flatten()
            if len(at):
                values.append(source.batch(rows[at] - self._starts[i])[name])
                places.append(at)
        order = torch.cat(places).argsort()
        whole = torch.cat(values) if isinstance(values[0], Tensor) else np.concatenate(values)
        into[name] = whole[order.to(whole.device)] if isinstance(whole, Tensor) else whole[order.numpy()]

    def take(self, index: Any) -> Source:
        raise BadInput(f"{self!r} has no views; take them of {', '.join(map(source_name, self.of))}")

    def __repr__(self) -> str:
        return f"Joined({', '.join(map(repr, self.of))})"
