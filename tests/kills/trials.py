"""A trial: kill a job once or more, see what is readable, go on to the end, compare with a run that never was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from oblivio import artefact
from oblivio.core.errors import BadInput
from oblivio.core.files import read_json, read_tensors
from oblivio.jobs import weights
from oblivio.jobs.folder import FIGURES, JOB, LOG, MODEL, interrupted
from oblivio.networks import Architecture

STAGES = {
    None: "preparation", "original": "original", "method": "method", "reference": "references", "figures": "figures",
    "end": "figures",
}  # fmt: skip
KILLED, FINISHED, FAILED, BAD_INPUT = -9, 0, 1, 2


def stage(folder: Path) -> str:
    """Which stage of the job the log in a trial's folder has come to."""
    log = folder / "out" / LOG
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()] if log.exists() else []
    return STAGES[next((e for e in reversed(events) if e in STAGES), None)]


@dataclass(frozen=True)
class Kill:
    """At operation ``at`` (``moment``: before, half, after), or ``seconds`` after the log has ``lines`` lines."""

    at: int | None = None
    moment: str = "time"
    lines: int = 0
    seconds: float = 0.0

    @property
    def request(self) -> dict[str, Any]:
        """As the server takes it."""
        return {"wait": (self.lines, self.seconds)} if self.at is None else {"fault": (self.at, self.moment)}


@dataclass
class Job:
    """A job, and what a run of it that is never killed leaves behind.

    Attributes:
        text: the job file.
        steps: between checkpoints.
        original: the user's file of weights, if the job has one.
    """

    server: Any
    folder: Path
    text: str
    steps: int
    original: Path | None = None
    trials: int = 0
    truth: dict[str, Any] = field(default_factory=dict)
    operations: list[tuple[str, str, str]] = field(default_factory=list)
    audited: list[str] = field(default_factory=list)
    models: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.untouched = fact(self.original)
        folder = self.new()
        code = self.server.run("forget", folder, steps=self.steps)
        assert code == FINISHED, said(folder)
        record = read_json(folder / "operations.json")
        self.operations, self.audited = [tuple(o) for o in record["seen"]], record["audited"]
        self.truth = left(folder)
        self.models = {digest for _, digest in readable(folder)}
        self.pauses = pauses(folder)

    def new(self) -> Path:
        """The folder of another trial."""
        self.trials += 1
        folder = self.folder / str(self.trials)
        folder.mkdir(parents=True)
        (folder / "job.yaml").write_text(self.text)
        return folder

    def killed(self, *kills: Kill) -> list[str]:
        """Kill the job, and what goes on with it, once by each of ``kills``; then let it end, and compare.

        Returns the stage of each kill; one that came too late has none.
        """
        folder, stages = self.new(), []
        for kill in kills:
            if self.go(folder, **kill.request) == KILLED:
                stages.append(stage(folder))
                self.check(folder)
        self.ends(folder)
        return stages

    def fails(self, at: int, how: str) -> str:
        """Let file operations fail from ``at`` on; the user is told in one line; then, with none failing, the end.

        Returns what the user is told; nothing where the failure made no difference.
        """
        folder = self.new()
        code = self.go(folder, fault=(at, how))
        told = [line for line in said(folder).splitlines() if line.startswith("oblivio: ") and ": note: " not in line]
        if code == FINISHED:
            assert not told, told
        else:
            assert code in (FAILED, BAD_INPUT), said(folder)
            assert len(told) == 1, said(folder)
            assert "Traceback" not in said(folder), said(folder)
        self.check(folder)
        self.ends(folder)
        return "".join(told)

    def go(self, folder: Path, **fault: Any) -> int:
        """Begin the job, or go on with it, as a user would; a run that was killed when all was written is finished."""
        out = folder / "out"
        scenario = "resume" if (out / JOB).exists() else "forget"
        finished = (out / FIGURES).exists()
        code = int(self.server.run(scenario, folder, steps=self.steps, **fault))
        if finished and code == BAD_INPUT:
            assert "is a finished run" in said(folder), said(folder)
            return FINISHED
        return code

    def check(self, folder: Path) -> None:
        """What can be read as a model is a whole one; an interrupted run is refused; the original is as it was."""
        for path, digest in readable(folder):
            assert digest in self.models, f"{path} is readable, and no model of this job"
        if interrupted(folder / "out"):
            refused = False
            try:
                weights.saved(folder / "out")
            except BadInput:
                refused = True
            assert refused, "an interrupted run is readable as a model"
        assert fact(self.original) == self.untouched, "the original was changed"

    def ends(self, folder: Path) -> None:
        """Go on to the end: the same bits as ever, and nothing left over."""
        code = self.go(folder)
        assert code == FINISHED, said(folder)
        self.check(folder)
        found = left(folder)
        for name, expected in self.truth.items():
            assert found[name] == expected, f"{folder}: {name}: {found[name]} and not {expected}"


# --- what lies in a folder


def said(folder: Path) -> str:
    """All that the last child printed."""
    return (folder / "words").read_text()


def fact(original: Path | None) -> Any:
    """Content and times of a file."""
    return None if original is None else (hashlib.sha256(original.read_bytes()).hexdigest(), original.stat().st_mtime_ns)


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
    for path in [p for name in ("out", "cache") for p in (folder / name).rglob("*")]:
        try:
            found.append((path, digest(artefact.read(path).module if path.is_dir() else _from_file(path))))
        except BadInput:
            continue
    return found


def _from_file(path: Path) -> nn.Module:
    """The file's tensors in the network of the jobs here."""
    classes, inputs = 10, (1, 8, 8)
    module = Architecture("mlp", inputs, classes, {"hidden": [HIDDEN]}).build()
    read_tensors(path)
    artefact.load_weights(module, path)
    return module


HIDDEN = 8


def left(folder: Path) -> dict[str, Any]:
    """What a finished job leaves: bits of all models, figures, rows forwarded, names of all files."""
    out, models = folder / "out", folder / "cache" / "models"
    facts = read_json(out / FIGURES)
    kept = {path.name: digest(artefact.read(path).module) for path in sorted(models.iterdir()) if path.is_dir()}
    return {
        "model": digest(artefact.read(out / MODEL).module),
        "kept models": kept,
        "rows of kept models": {key: read_json(models / key / artefact.META)["provenance"]["rows"] for key in kept},
        "facts": {name: value for name, value in facts.items() if name != "cost"},
        "rows": facts["cost"]["rows"],
        "share of rows": facts["cost"]["of_retraining"]["rows"],
        "job": (out / JOB).read_text(),
        "files": sorted(str(p.relative_to(folder)) for n in ("out", "cache") for p in (folder / n).rglob("*")),
    }


def pauses(folder: Path) -> Sequence[float]:
    """Seconds from the beginning to the first line of the log, and from each line to the next."""
    from datetime import datetime

    lines = [json.loads(line) for line in (folder / "out" / LOG).read_text().splitlines()]
    began = (folder / "words").stat().st_ctime
    times = [began, *(datetime.fromisoformat(line["time"]).timestamp() for line in lines)]
    return [b - a for a, b in zip(times, times[1:], strict=False)]
