"""Limit how far any one weight moves in a step."""

from __future__ import annotations

from oblivio.core.step import Step
from oblivio.core.where import How


class limit(How):
    """After the optimiser's update no entry of a weight has moved by more than ``most``."""

    motion = True

    def __init__(self, most: float = 0.01) -> None:
        self.most = most

    def after(self, step: Step) -> None:
        for name, weight in step.weights.items():
            weight.copy_(step.was[name] + (weight - step.was[name]).clamp(-self.most, self.most))
