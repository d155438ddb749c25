"""A learner's folder: tensor files, and one pointer, ``learner.json``, that says which of them are in force.

Files are written first, then the pointer is switched, then files that went out of force are removed: a kill between
any two writes leaves the state before the request or the one after it, and what was already trained stays for the
same request when it is asked again.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from oblivio.core import files
from oblivio.core.errors import BadInput

POINTER = "learner.json"
SCHEMA = 1


class Folder:
    """Tensors by name under ``path``; without a path a temporary folder, gone with this object."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="oblivio-")) if path is None else path
        if path is None:
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self.path / "files" / f"{name}.safetensors"

    def has(self, name: str) -> bool:
        """Whether the file is there, whole."""
        return self._file(name).exists()

    def put(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write a file; it is not in force until ``switch`` names it."""
        self._file(name).parent.mkdir(parents=True, exist_ok=True)
        files.write_tensors(self._file(name), tensors)

    def get(self, name: str) -> dict[str, Tensor]:
        """Read a file into aligned memory, on which last bits can depend."""
        return {n: v.clone() for n, v in files.read_tensors(self._file(name)).items()}

    def switch(self, kind: str, fingerprint: Any, facts: Any, names: Iterable[str]) -> None:
        """Put ``facts`` and these files in force; ``clean`` then removes the others."""
        self.path.mkdir(parents=True, exist_ok=True)
        now = sorted(set(names))
        drop = sorted(set(self._present()).difference(now))
        value = {"schema": SCHEMA, "kind": kind, "fingerprint": fingerprint, "facts": facts, "files": now, "drop": drop}
        files.write_json(self.path / POINTER, value)

    def clean(self) -> None:
        """Remove every file that the pointer does not name."""
        keep = set(files.read_json(self.path / POINTER)["files"])
        self._remove(path for path in (self.path / "files").glob("*") if path.stem not in keep or path.name[0] == ".")

    def read(self, kind: str, fingerprint: dict[str, Any]) -> Any:
        """The facts in force. What a kill left undone of a request that is in force is done now.

        Raises:
            BadInput: no learner there, one of another kind, of a newer release, or of other settings.
        """
        pointer = self.path / POINTER
        if not pointer.exists():
            raise BadInput(f"{self.path} holds no learner: there is no {POINTER}")
        value = files.read_json(pointer)
        if value["schema"] > SCHEMA:
            raise BadInput(f"{pointer} has schema {value['schema']}, written by a newer release; this reads {SCHEMA}")
        if value["kind"] != kind:
            raise BadInput(f"{self.path} holds a learner of the kind {value['kind']}, not {kind}")
        for name, mine in fingerprint.items():
            theirs = value["fingerprint"].get(name)
            if theirs != mine:
                raise BadInput(f"{self.path} was made with {name} = {theirs}; this learner has {mine}; make it alike")
        self._remove(self._file(name) for name in value["drop"])
        return value["facts"]

    def unused(self) -> None:
        """Raises BadInput where a learner lies here that was not loaded."""
        if (self.path / POINTER).exists():
            raise BadInput(f"{self.path} holds a learner already; load it, or choose another folder")

    def _present(self) -> list[str]:
        return [path.stem for path in (self.path / "files").glob("*.safetensors") if path.name[0] != "."]

    def _remove(self, paths: Iterable[Path]) -> None:
        gone = [path for path in paths if path.exists()]
        for path in gone:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        if gone:
            files.sync_folder(self.path / "files")
