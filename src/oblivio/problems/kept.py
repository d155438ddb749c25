"""What derives from a kept model, kept beside it under a key of all that went into it; it goes when the model goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from oblivio.core.files import read_json, read_tensors, write_json, write_tensors
from oblivio.core.run import pack, unpack
from oblivio.jobs import cache


def kept(model: Path, name: str, made_of: dict[str, Any], make: Callable[[], Any]) -> Any:
    """What ``make()`` gives: tensors, numbers and strings in nested dicts, read where it was made before.

    Args:
        model: the folder of the kept model.
        name: of the thing.
        made_of: all that it depends on besides the model, as JSON.
        make: called where it is not there.
    """
    folder = model / "derived" / f"{name}-{cache.key(made_of)}"
    if not (folder / "value.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        packed = pack(make(), name, tensors)
        write_tensors(folder / "tensors.safetensors", tensors)
        write_json(folder / "value.json", packed)  # with this the value is there
    return unpack(read_json(folder / "value.json"), read_tensors(folder / "tensors.safetensors"))
