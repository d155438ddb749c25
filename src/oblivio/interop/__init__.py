"""Other libraries' training, with what is here: ``Remember`` for the Trainer of Transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oblivio.data.extras import need

if TYPE_CHECKING:
    from oblivio.interop.trainer import Remember as Remember

__all__ = ["Remember"]


def __getattr__(name: str) -> Any:
    if name == "Remember":
        need("transformers", "hf")
        need("accelerate", "hf")
        from oblivio.interop.trainer import Remember

        return Remember
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
