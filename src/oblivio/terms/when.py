"""Coefficients that depend on the experience."""

from __future__ import annotations

from oblivio.core.step import Step


def later(step: Step) -> float:
    """1 from the second experience on, 0 in the first, where there is nothing yet to keep."""
    return float(step.problem.turn > 1)
