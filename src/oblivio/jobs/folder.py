"""The folder of a run: what lies in it, when it may be used, and its log."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oblivio.audits.report import JSON
from oblivio.core.errors import BadInput
from oblivio.core.files import write_bytes
from oblivio.jobs.job import Job
from oblivio.jobs.section import Section

JOB, LOG, MODEL, WORK = "job.yaml", "log.jsonl", "model", "work"


LAST = (JSON, "figures.json")  # what is written when a run is finished, now and before there was an audit


def interrupted(folder: Path) -> bool:
    """Whether a run began in ``folder`` and did not come to its end."""
    return (folder / JOB).exists() and not any((folder / name).exists() for name in LAST)


def check_new(folder: Path) -> None:
    """Refuse a folder that holds something, or that cannot be written. Nothing is made yet.

    Raises:
        BadInput: what is in the way, and what to do.
    """
    if interrupted(folder):
        raise BadInput(f"{folder} is an interrupted run; go on with: oblivio resume {folder}")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; choose a folder for the output")
    if folder.is_dir() and any(not _leftover(path) for path in folder.iterdir()):
        raise BadInput(f"{folder} exists and is not empty; choose another folder for the output")
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise BadInput(f"{folder} cannot be made: {above} is not a folder that can be written")


def check_resumable(folder: Path, job: Job | None = None) -> None:
    """Refuse to resume what is no interrupted run, or one of another job.

    Raises:
        BadInput: what the folder is instead, or that its job differs.
    """
    if not (folder / JOB).exists():
        raise BadInput(f"{folder} holds no run: there is no {JOB}")
    if not interrupted(folder):
        tidy(folder, WORK)
        raise BadInput(f"{folder} is a finished run; there is nothing to resume")
    if job is not None and (kept := Job.load(folder / JOB)) != job:
        differ = [name for name, value in job if getattr(kept, name) != value]
        raise BadInput(f"{folder} was begun with another job: {', '.join(differ)} differ from its {JOB}")


def remove(folder: Path) -> None:
    """Remove a folder. It gets another name first, so that a kill leaves no half of it under its own."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


def tidy(folder: Path, *done: str) -> None:
    """Remove the folders ``done`` in ``folder``, and what kills left below it; for the only process that writes there.

    What cannot be removed stays: it does no harm.
    """
    with contextlib.suppress(OSError):
        for name in done:
            remove(folder / name)
        for path in folder.rglob(".*.gone"):
            shutil.rmtree(path, ignore_errors=True)
        for path in folder.rglob(".*.part"):
            path.unlink()


def _leftover(path: Path) -> bool:
    """A temporary file of a write that was killed."""
    return path.name.startswith(".") and path.name.endswith(".part")


def begin(folder: Path, job: Section) -> None:
    """Make the folder and write the job into it: from then on it is a run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / JOB, job.to_yaml().encode())
    except PermissionError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror}") from None


class Log:
    """``log.jsonl``: one JSON object a line, rewritten whole at each event so that no half line is ever read.

    It holds what was done and numbers about it, never inputs or the content of rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = path.read_text().splitlines() if path.exists() else []

    def __call__(self, event: str, **facts: Any) -> None:
        """Write down an event with its facts and the time."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.lines.append(json.dumps({"time": time, "event": event, **facts}))
        write_bytes(self.path, ("\n".join(self.lines) + "\n").encode())
