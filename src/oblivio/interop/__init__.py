"""Other libraries' training, with what is here: ``Remember`` and ``Objective`` for the Trainer of Transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oblivio.data.extras import need

if TYPE_CHECKING:
    from oblivio.interop.objective import Objective as Objective
    from oblivio.interop.trainer import Remember as Remember

__all__ = ["Objective", "Remember"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    need("transformers", "hf")
    need("accelerate", "hf")
    if name == "Objective":
        from oblivio.interop.objective import Objective

        return Objective
    from oblivio.interop.trainer import Remember

    return Remember
