"""Learners: what owns its training, keeps learning and forgets on request.

``registry`` lists the exact and certified ones by file: ``registry.get("sisa")(shards=5)(model)`` is a learner.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblivio.registry import Registry

if TYPE_CHECKING:
    from oblivio.learners.learner import Learner as Learner

registry = Registry("oblivio.learners", Path(__file__).parent, but=("forgetting", "learner", "shards"))

__all__ = ["Learner", "registry"]


def __getattr__(name: str) -> Any:
    if name == "Learner":
        from oblivio.learners.learner import Learner

        return Learner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
