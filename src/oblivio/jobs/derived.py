"""What still derives from the forgotten rows: files and folders that a run knows of, and their removal."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oblivio.audits.report import HTML, JSON, Report
from oblivio.core.errors import BadInput
from oblivio.core.files import write_bytes
from oblivio.jobs.folder import LOG, WORK, Log, interrupted, remove

LOCK = ".lock"


@dataclass(frozen=True)
class Derived:
    """A file or folder; ``sha256`` is of its content, so that nothing else is ever removed in its place."""

    path: str
    what: str
    sha256: str


@dataclass(frozen=True)
class Purged:
    """What a purge did: paths that went, and paths that stay, each with the reason."""

    gone: Sequence[str]
    left: Sequence[tuple[str, str]]


def derived(path: Path, what: str) -> Derived:
    """This file or folder, as it is now."""
    return Derived(str(path.absolute()), what, digest(path))


def digest(path: Path) -> str:
    """A hash of a file, or of all files in a folder with their names."""
    hashed = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        hashed.update(str(file.relative_to(path) if path.is_dir() else "").encode())
        with file.open("rb") as stream:
            hashed.update(hashlib.file_digest(stream, "sha256").digest())
    return hashed.hexdigest()


def listed(folder: Path) -> list[Derived]:
    """What the report in the folder of a run says still derives from the forgotten rows.

    Raises:
        BadInput: no finished run there.
    """
    if interrupted(folder):
        raise BadInput(f"{folder} is an interrupted run; finish it first with: oblivio resume {folder}")
    return [Derived(**each) for each in Report.load(folder)["derived"]]


def purge(folder: Path) -> Purged:
    """Remove what still derives from the forgotten rows of a finished run. There is no way back after that.

    A file that is no longer the one the run saw stays, and so does what cannot be removed; the report then goes on
    listing it. Called again after a kill, it goes on.

    Raises:
        BadInput: no finished run in ``folder``.
    """
    gone, left = [], []
    for each in listed(folder):
        reason = _removed(each)
        if reason is None:
            gone.append(each.path)
        else:
            left.append((each, reason))
    remove(folder / WORK)
    _write(folder, gone, [each for each, _ in left])
    return Purged(gone, [(each.path, reason) for each, reason in left])


def _removed(each: Derived) -> str | None:
    """Remove it; None where it is gone, else why it is not."""
    path = Path(each.path)
    if not path.exists():
        return None
    if digest(path) != each.sha256:
        return "its content is no longer what the run saw"
    try:
        if path.is_dir():
            remove(path)
        else:
            path.unlink()
        Path(f"{path}{LOCK}").unlink(missing_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "it is still there" if path.exists() else None


def _write(folder: Path, gone: Sequence[str], left: Sequence[Derived]) -> None:
    report = Report.load(folder)
    sentence = f"{len(gone)} files and folders that derived from the forgotten rows were removed: there is no roll-back"
    notes = [note for note in report["notes"] if not note.endswith("there is no roll-back")]
    done: dict[str, Any] = {"derived": [asdict(each) for each in left], "notes": [*notes, sentence]}
    after = report.but(**done)
    Log(folder / LOG)("purge", removed=list(gone), left=[each.path for each in left])
    write_bytes(folder / HTML, after.html().encode())
    after.save_json(folder / JSON)
