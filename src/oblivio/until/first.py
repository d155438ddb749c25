"""For stages of a Cycle that take part in its first rounds only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class first:
    """As ``epochs`` of a Descent: one epoch in each of the first ``visits``, then none."""

    visits: int

    def __call__(self, visit: int) -> int:
        return int(visit < self.visits)
