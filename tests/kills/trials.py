"""A trial: kill a job once or more, see what is readable, go on to the end, compare with a run that never was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from kills.server import Server
from oblivio import artefact
from oblivio.audits.report import JSON
from oblivio.core.errors import BadInput
from oblivio.core.files import read_json
from oblivio.jobs import weights
from oblivio.jobs.folder import JOB, LOG, MODEL, interrupted
from oblivio.networks import Architecture

STAGES = {"original": "original", "method": "method", "reference": "references", "audit": "audit", "end": "audit"}
KILLED, FINISHED, FAILED, BAD_INPUT = -9, 0, 1, 2
HIDDEN = 8
JOB_TEXT = """
data: {name: digits, valid: 0.1}
model: {name: mlp, options: {hidden: [8]}%(weights)s}
recipe: {epochs: 1.5}
forget: class=3
method: {name: %(method)s, settings: {epochs: 4, batch: 16}}
references: 1
audit: {leave_out: [mia_confidence, relearning]}
"""


@dataclass(frozen=True)
class Kill:
    """At file operation ``at`` (see ``operations.Fault``), or ``seconds`` after the log has ``lines`` lines."""

    at: int | None = None
    moment: str = "time"
    lines: int = 0
    seconds: float = 0.0

    @property
    def request(self) -> dict[str, Any]:
        """As the server takes it."""
        return {"wait": (self.lines, self.seconds)} if self.at is None else {"fault": (self.at, self.moment)}


class Job:
    """A job on digits, and what a run of it that is never killed does and leaves behind.

    Args:
        server: forks the children.
        folder: for the trials.
        method: to forget with.
        original: the user's own file of weights; None has the original trained in the job.
        steps: between checkpoints.
        plant: a fault, by its name in ``scenarios.PLANTS``.
    """

    def __init__(
        self, server: Server, folder: Path, method: str = "salun", original: Path | None = None, steps: int = 14,
        plant: str | None = None,
    ) -> None:  # fmt: skip
        self.server, self.folder, self.original = server, folder, original
        self.settings = {"steps": steps, "plant": plant}
        self.text = JOB_TEXT % {"weights": f", weights: {original}" if original else "", "method": method}
        self.trials = 0
        self.untouched = fact(original)
        undisturbed = self.new()
        assert self.go(undisturbed) == FINISHED, said(undisturbed)
        record = read_json(undisturbed / "operations.json")
        self.operations = [Operation(*o) for o in record["seen"]]
        self.audited: list[str] = record["audited"]
        self.truth = left(undisturbed)
        self.models = {digest for _, digest in readable(undisturbed)}
        self.stages, self.pauses = pauses(undisturbed)

    def new(self) -> Path:
        """The folder of another trial."""
        self.trials += 1
        folder = self.folder / str(self.trials)
        folder.mkdir(parents=True)
        (folder / "job.yaml").write_text(self.text)
        return folder

    def killed(self, *kills: Kill) -> list[str | None]:
        """Kill the job, and what goes on with it, by each of ``kills``; then let it end, and compare.

        Returns the stage of each kill; None of one that came too late.
        """
        folder = self.new()
        stages = [self._kill(folder, kill) for kill in kills]
        self.ends(folder)
        return stages

    def _kill(self, folder: Path, kill: Kill) -> str | None:
        if self.go(folder, **kill.request) != KILLED:
            return None
        self.check(folder)
        return stage(folder)

    def fails(self, at: int, how: str) -> str:
        """Let file operations fail from ``at`` on; the user is told in one line; then, with none failing, the end.

        Returns what the user is told; nothing where the failure made no difference.
        """
        folder = self.new()
        code, words = self.go(folder, fault=(at, how)), said(folder)
        told = [line for line in words.splitlines() if line.startswith("oblivio: ") and not line[9:].startswith("note")]
        assert code in (FINISHED, FAILED, BAD_INPUT), words
        assert len(told) == (code != FINISHED), words
        assert "Traceback" not in words, words
        self.check(folder)
        self.ends(folder)
        return "".join(told)

    def cleared(self, fault: tuple[int, str] | None) -> int:
        """Clear the cache with a model and half a training in it, with a kill amid that; then the job goes on.

        Returns how the clearing ended; what it left half done, the next one removes.
        """
        half = next(at for at, o in enumerate(self.operations) if o.stage == "references" and o.name == "checkpoint-1")
        folder = self.new()
        assert self.go(folder, fault=(half, "before")) == KILLED
        code = self.server.run("clear", folder, fault=fault)
        if code == FINISHED:
            (folder / "operations.json").rename(folder / "cleared.json")
        self.check(folder)
        self.ends(folder)
        assert self.server.run("clear", folder) == FINISHED, said(folder)
        assert not [path for path in (folder / "cache" / "models").iterdir() if path.is_dir()]
        return code

    def go(self, folder: Path, **fault: Any) -> int:
        """Begin the job, or go on with it, as a user would; a run that was killed when all was written is finished."""
        out = folder / "out"
        scenario, finished = "resume" if (out / JOB).exists() else "forget", (out / JSON).exists()
        code = self.server.run(scenario, folder, **fault, **self.settings)
        if finished and code == BAD_INPUT:
            assert "is a finished run" in said(folder), said(folder)
            return FINISHED
        return code

    def check(self, folder: Path) -> None:
        """What can be read as a model is a whole one; an interrupted run is refused; the original is as it was."""
        for path, digest in readable(folder):
            assert digest in self.models, f"{path} is readable, and no model of this job"
        assert not interrupted(folder / "out") or refused(folder / "out"), "an interrupted run is readable as a model"
        assert fact(self.original) == self.untouched, "the original was changed"

    def ends(self, folder: Path) -> None:
        """Go on to the end: the same bits as ever, and nothing left over."""
        assert self.go(folder) == FINISHED, said(folder)
        self.check(folder)
        found = left(folder)
        for name, expected in self.truth.items():
            assert found[name] == expected, f"{folder}: {name}: {found[name]} and not {expected}"


@dataclass(frozen=True)
class Operation:
    """What a run did with a file, and in which stage."""

    kind: str
    name: str
    stage: str


# --- what lies in a folder


def stage(folder: Path) -> str:
    """Which stage of the job the log in a trial's folder has come to."""
    log = folder / "out" / LOG
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()] if log.exists() else []
    return next((STAGES[event] for event in reversed(events) if event in STAGES), "preparation")


def said(folder: Path) -> str:
    """All that the last child printed."""
    return (folder / "words").read_text()


def fact(original: Path | None) -> Any:
    """Content and time of a file."""
    return None if original is None else (original.read_bytes(), original.stat().st_mtime_ns)


def digest(module: nn.Module) -> str:
    """A hash of every tensor with its name and type."""
    hashed = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.detach().contiguous().numpy().tobytes())
    return hashed.hexdigest()


def readable(folder: Path) -> list[tuple[Path, str]]:
    """Every folder and every file, finished or not, that can be read as a model, with its digest."""
    found = []
    for path in below(folder):
        try:
            found.append((path, digest(artefact.read(path).module if path.is_dir() else _from_file(path))))
        except BadInput:
            continue
    return found


def below(folder: Path) -> Iterator[Path]:
    """All that the job wrote; what a killed clearing of the cache left is not part of it."""
    models = folder / "cache" / "models"
    for path in [*(folder / "out").rglob("*"), *(folder / "cache").rglob("*")]:
        if not any(above.parent == models and above.suffix == ".gone" for above in (path, *path.parents)):
            yield path


def _from_file(path: Path) -> nn.Module:
    """The file's tensors in the network of the jobs here."""
    module = Architecture("mlp", (1, 8, 8), 10, {"hidden": [HIDDEN]}, preprocess="channels").build()
    artefact.load_weights(module, path)
    return module


def refused(run: Path) -> bool:
    """Whether a run's folder is not taken for a model."""
    try:
        weights.saved(run)
    except BadInput:
        return True
    return False


def left(folder: Path) -> dict[str, Any]:
    """What a finished job leaves: bits of all models, what the audit found, rows forwarded, names of all files."""
    out, models = folder / "out", folder / "cache" / "models"
    facts = read_json(out / JSON)
    kept = {path.name: digest(artefact.read(path).module) for path in sorted(models.glob("[!.]*")) if path.is_dir()}
    return {
        "model": digest(artefact.read(out / MODEL).module),
        "kept models": kept,
        "rows of kept models": {key: read_json(models / key / artefact.META)["provenance"]["rows"] for key in kept},
        "facts": {name: value for name, value in facts.items() if name not in ("cost", "derived")},
        "rows": facts["cost"]["rows"],
        "share of rows": facts["cost"]["of_retraining"]["rows"],
        "job": (out / JOB).read_text(),
        "files": sorted(str(path.relative_to(folder)) for path in below(folder)),
    }


def pauses(folder: Path) -> tuple[list[str], list[float]]:
    """The stages before the first line of the log, and between each line and the next; the seconds of each."""
    lines = [json.loads(line) for line in (folder / "out" / LOG).read_text().splitlines()]
    began = (folder / "job.yaml").stat().st_mtime
    times = [began, *(datetime.fromisoformat(line["time"]).timestamp() for line in lines)]
    stages = ["preparation", *(STAGES.get(line["event"], "") for line in lines)]
    return stages[: len(lines)], [b - a for a, b in pairwise(times)]
