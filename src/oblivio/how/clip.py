"""Clip the whole gradient."""

from __future__ import annotations

from oblivio.core.grads import Grads, norm
from oblivio.core.step import Step
from oblivio.core.where import How


class clip(How):
    """Scale the gradient down to the norm ``most`` over all weights together."""

    def __init__(self, most: float = 1.0) -> None:
        self.most = most

    def __call__(self, grads: Grads, step: Step) -> Grads:
        factor = (self.most / (norm(grads) + 1e-12)).clamp(max=1)
        return {k: g * factor for k, g in grads.items()}

    def __repr__(self) -> str:
        return f"clip({self.most:g})"
