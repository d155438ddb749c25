"""Records: what was measured, on what, from which commit. JSON files that are committed with the code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from oblivio.core.errors import BadInput

ROOT = Path(__file__).resolve().parents[3]
CHANGES = "+changes"
FOLDER = ROOT / "results" / "claims"

Numbers = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Record:
    """One claim as it was measured.

    Attributes:
        id: of the claim.
        verdict: ``holds`` or ``fails``; None of a fast run, which judges nothing.
        seeds: one run each.
        figures: by name, a value a seed.
        control: by what it is: its own verdict, figures and reason.
        reason: each condition with its numbers, and an explanation of those that failed.
        command: that measures it again.
        seconds: it took.
        commit: of the code; ``+changes`` where that was not all.
        versions: of Python and libraries.
        machine: type, system and threads.
    """

    id: str
    verdict: str | None
    seeds: Sequence[int]
    figures: Numbers
    control: Mapping[str, Mapping[str, Any]]
    reason: str
    command: str
    seconds: float
    commit: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]


def path(name: str) -> Path:
    """Where the record of a claim is."""
    return FOLDER / f"{name}.json"


def read(name: str) -> Record:
    """The record of a claim. Raises BadInput where there is none, or where it is broken."""
    if not path(name).exists():
        raise BadInput(f"claim {name} has no record yet; make one with: oblivio claims run {name}")
    try:
        return Record(**json.loads(path(name).read_text()))
    except (TypeError, ValueError) as error:
        raise BadInput(f"{path(name)} is no record of a claim: {error}") from None


def write(record: Record) -> None:
    """Put a record in the place of the one before."""
    from oblivio.core.files import write_json  # imports torch

    FOLDER.mkdir(parents=True, exist_ok=True)
    write_json(path(record.id), asdict(record))


def provenance(since: str) -> dict[str, Any]:
    """The fields ``commit``, ``versions`` and ``machine`` of a record that was begun on the commit ``since``.

    No name of the computer is in them.
    """
    import platform

    from oblivio.core.run import environment

    now = environment()
    versions = {name: metadata.version(name) for name in ("oblivio", "scikit-learn")} | now["versions"]
    machine = {"type": now["machine"], "system": platform.system(), "threads": now["threads"]}
    changed = commit() != since and not since.endswith(CHANGES)
    return {"commit": since + CHANGES * changed, "versions": versions, "machine": machine}


def commit() -> str:
    """The commit of the code, with ``+changes`` where files of the package differ from it; else the release."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return f"release {metadata.version('oblivio')}"
    return head + CHANGES * bool(_git("status", "--porcelain", "--", "src"))


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
