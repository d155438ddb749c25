"""The file operations of this process, counted; at one of them it dies, or from one on they fail."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

FULL = dict.fromkeys(("open", "write", "flush", "fsync", "rename", "mkdir"), errno.ENOSPC)
DENIED = {
    **dict.fromkeys(("open", "rename", "mkdir", "unlink", "rmdir"), errno.EACCES),
    **dict.fromkeys(("write", "flush", "fsync"), errno.EPERM),
}
FAILURES = {"full": FULL, "denied": DENIED}
AUDITED = {"os.mkdir": "mkdir", "os.remove": "unlink", "os.rmdir": "rmdir", "os.rename": "rename"}


@dataclass(frozen=True)
class Fault:
    """What happens at operation ``at``, counted from 0.

    ``moment``: ``before``, ``half`` (of a write) or ``after`` kill the process as the system does, without a last word;
    ``power`` is before, and half of each file that was written without an fsync is lost too; ``full`` and ``denied``
    make this operation and all later ones fail.
    """

    at: int
    moment: str


class Operations:
    """Operations below ``root``, as ``seen``: (kind, name of the file, ``stage()`` at the time)."""

    def __init__(self, root: Path, fault: Fault | None = None, stage: Callable[[], str] = str) -> None:
        self.root, self.fault, self.stage = str(root), fault, stage
        self.seen: list[tuple[str, str, str]] = []
        self.unsynced: set[str] = set()
        self.audited: list[str] = []

    def install(self) -> None:
        """From now on, and for the life of this process."""
        opened, low = builtins.open, os.open
        builtins.open = io.open = self._opening(opened)  # type: ignore[assignment]
        os.open = self._creating(low)
        os.fsync = self._counted("fsync", os.fstat)  # no waiting for the disk: a kill of the process loses no write
        for kind, names in {"rename": ("rename", "replace"), "unlink": ("unlink", "remove")}.items():
            for name in names:
                setattr(os, name, self._counted(kind, getattr(os, name)))
        os.mkdir = self._counted("mkdir", os.mkdir)
        os.rmdir = self._counted("rmdir", os.rmdir)
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        """What the interpreter itself knows of the same operations: nothing may pass uncounted."""
        if event in AUDITED and self._ours(args[0]):
            self.audited.append(AUDITED[event])
        elif event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and self._ours(args[0]):
            self.audited.append("open")

    def _ours(self, path: Any) -> bool:
        """A path below the root, or one that is relative to an open folder, as ``shutil.rmtree`` has them."""
        if isinstance(path, int):
            return True
        text = os.fsdecode(path)
        return text.startswith(self.root) if os.path.isabs(text) else True

    # --- wrapped calls

    def _counted(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._ours(path):
                return call(path, *args, **kwargs)
            if kind == "rename":
                return self._do(kind, args[0], lambda: call(path, *args, **kwargs), source=path)
            return self._do(kind, path, lambda: call(path, *args, **kwargs))

        return wrapped

    def _creating(self, call: Callable[..., int]) -> Callable[..., int]:
        def wrapped(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if not flags & os.O_CREAT or not self._ours(path):
                return call(path, flags, *args, **kwargs)
            return self._do("open", path, lambda: call(path, flags, *args, **kwargs))

        return wrapped

    def _opening(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wax+") or not self._ours(path):
                return call(path, mode, *args, **kwargs)
            return File(self, path, self._do("open", path, lambda: call(path, mode, *args, **kwargs)))

        return wrapped

    def _note(self, kind: str, path: Any, source: Any = None) -> None:
        """Which files have content that a loss of power would take."""
        if kind == "write":
            self.unsynced.add(os.fsdecode(path))
        elif kind == "fsync":
            self.unsynced.discard(os.readlink(f"/proc/self/fd/{path}"))
        elif kind == "rename" and os.fsdecode(source) in self.unsynced:
            self.unsynced ^= {os.fsdecode(source), os.fsdecode(path)}

    def _do(
        self, kind: str, path: Any, call: Callable[[], Any], half: Callable[[], Any] = str, source: Any = None
    ) -> Any:
        number, fault = len(self.seen), self.fault
        self.seen.append((kind, "" if isinstance(path, int) else os.path.basename(os.fsdecode(path)), self.stage()))
        if fault is None or number < fault.at:
            done = call()
            self._note(kind, path, source)
            return done
        if fault.moment in FAILURES:
            return self._failing(FAILURES[fault.moment].get(kind), kind, path, call, half)
        if number > fault.at:
            return call()
        {"before": str, "half": half, "after": call, "power": self._lose}[fault.moment]()
        return die()

    def _lose(self) -> None:
        for path in filter(os.path.exists, self.unsynced):
            os.truncate(path, os.path.getsize(path) // 2)

    def _failing(self, code: int | None, kind: str, path: Any, call: Callable[[], Any], half: Callable[[], Any]) -> Any:
        if code is None:
            return call()
        half()
        named = () if kind in ("write", "flush", "fsync") else (os.fsdecode(path),)  # as the system's own errors are
        raise OSError(code, os.strerror(code), *named)


class File:
    """A file that is open for writing."""

    def __init__(self, operations: Operations, path: Any, file: Any) -> None:
        self._operations, self._path, self._file = operations, path, file

    def write(self, data: Any) -> Any:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        return self._operations._do("write", self._path, lambda: self._file.write(data), half)

    def flush(self) -> None:
        self._operations._do("flush", self._path, self._file.flush)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def die() -> NoReturn:
    """As ``kill -9`` does it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")
