"""Trained models that are kept: each under a key of all that went into it, so that a change of anything is a miss.

``$OBLIVIO_CACHE`` (default ``~/.cache/oblivio``) holds ``models/<key>/``, a saved model, and in its ``run/`` the
checkpoints of a training that is not finished. A lock beside it keeps two processes from training the same model.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import inspect
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from oblivio import artefact
from oblivio.core.errors import BadInput
from oblivio.core.files import read_json
from oblivio.core.run import Watch, environment
from oblivio.core.source import Source
from oblivio.core.team import ALONE, Team
from oblivio.jobs.folder import remove, tidy
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.jobs.training import Trained, train
from oblivio.tasks import TASKS

TRAINERS = ("jobs/training.py", "sources/convert.py")  # besides the network and the task
PACKAGE = Path(__file__).parent.parent
AT_ONCE = 4096


def root() -> Path:
    """Where models are kept; it need not exist yet."""
    given = os.environ.get("OBLIVIO_CACHE")
    return (Path(given) if given else Path.home() / ".cache" / "oblivio") / "models"


# --- keys


def parts(
    recipe: Recipe, network: Network, source: Source, seed: int, *, task: str, team: Team = ALONE
) -> dict[str, Any]:
    """What determines a trained model, as JSON: rows, recipe, network, seed, code, machine type, threads, versions."""
    users = [name.partition(":")[0] for name in (recipe.train, network.architecture.name) if name and ":" in name]
    return {
        "rows": digest(source), "recipe": recipe.model_dump(), "network": network.architecture.to_json(),
        "seed": seed, "task": task, "code": code(_trainers(network.architecture.name, task)),
        "own": {name: _source(name) for name in users},
        "team": [team.size, str(team.device), team.precision], **environment(),
    }  # fmt: skip


def key(parts: dict[str, Any]) -> str:
    """The name of the folder of a model with these parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:32]


def place(parts: dict[str, Any]) -> Path:
    """The folder of a model with these parts, whether it is there or not."""
    return root() / key(parts)


def digest(source: Source) -> str:
    """A hash of the ids and of every column of the rows, in their order. Raises BadInput where reading draws anew."""
    if source.random:
        raise BadInput(
            f"the transform of source {source.name!r} draws anew at each reading, so no model trained on it "
            "can be kept; use recipe.augmentation"
        )
    hashed = hashlib.sha256(json.dumps(source.ids.tolist()).encode())
    for batch in source.batches(AT_ONCE):
        for name in source.columns:
            column = np.ascontiguousarray(torch.as_tensor(batch[name]).cpu().numpy())
            hashed.update(f"{name} {column.dtype} {column.shape}".encode())
            hashed.update(column.tobytes())
    return hashed.hexdigest()


def code(starts: Iterable[str] = TRAINERS) -> str:
    """A hash of the source text of these files of the package and of all that they import, in turn, from it."""
    files: set[Path] = set()
    new = {PACKAGE / start for start in starts}
    while new:
        files |= new
        new = {found for file in new for name in _imported(file.read_text()) for found in _files(name)} - files
    return _hash(file.read_bytes() for file in sorted(files))


def _trainers(name: str, task: str) -> list[str]:
    """The files by which training starts: those that no import names are the network's and the task's own."""
    own = [] if ":" in name else [f"networks/{name.replace('-', '_')}.py"]
    return [*TRAINERS, *own, f"{TASKS[task].__module__.replace('.', '/').removeprefix('oblivio/')}.py"]


@functools.cache
def _imported(text: str) -> list[str]:
    """What of this package a file imports, wherever in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.startswith("oblivio.")]


def _files(name: str) -> list[Path]:
    """The file of ``package.module`` or ``package.module.thing``, of a package its ``__init__`` alone."""
    base = PACKAGE.joinpath(*name.split(".")[1:])
    found = [base.with_suffix(".py"), base / "__init__.py", base.parent.with_suffix(".py"), base.parent / "__init__.py"]
    return [path for path in found if path.is_file()][:1]


def _source(module: str) -> str:
    """A hash of the source text of a user's module; of what that imports in turn nothing is known."""
    file = inspect.getsourcefile(importlib.import_module(module))
    return _hash([Path(file).read_bytes()] if file else [])


def _hash(texts: Iterable[bytes]) -> str:
    hashed = hashlib.sha256()
    for text in texts:
        hashed.update(text)
    return hashed.hexdigest()


# --- models


def trained(
    recipe: Recipe,
    network: Network,
    source: Source,
    seed: int,
    *,
    task: str,
    team: Team = ALONE,
    watch: Sequence[Watch] = (),
) -> Trained:
    """The model that ``train`` makes of these: kept from before, or trained now and kept.

    Another process that trains the same model is waited for; what a killed one left is gone on with. The bits are the
    same either way.
    """
    made_of = parts(recipe, network, source, seed, task=task, team=team)
    folder = place(made_of)
    with _locked(folder, team):
        if not _agreed((folder / artefact.META).exists(), team):
            _fill(
                folder,
                made_of,
                train(recipe, network, source, seed, folder / "run", task=task, team=team, watch=watch),
                network,
                task,
                team,
            )
        if team.rank == 0:
            tidy(folder, "run")
    kept = artefact.read(folder, factory=network.architecture.name)
    return Trained(kept.module, kept.provenance["seconds"], kept.provenance["rows"])


def _fill(folder: Path, made_of: dict[str, Any], made: Trained, network: Network, task: str, team: Team) -> None:
    if team.rank == 0:
        facts = {"seconds": made.seconds, "rows": made.rows, "made_of": made_of}
        artefact.save(folder, made.module, task=task, architecture=network.architecture, provenance=facts)
    team.wait()


@contextlib.contextmanager
def _locked(folder: Path, team: Team) -> Iterator[None]:
    """The first process of the team holds the lock for all of them."""
    if team.rank == 0:
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock") if team.rank == 0 else contextlib.nullcontext():
        yield


def _agreed(mine: bool, team: Team) -> bool:
    """What the first process says, which has the lock when it looks."""
    said = torch.tensor(float(mine and team.rank == 0), device=team.device)
    team.total([said])
    return bool(said)


# --- looking after it


@dataclass(frozen=True)
class Entry:
    """A kept model.

    ``finished``: whether it is a model yet, or a training that was stopped or still runs. ``current``: whether this
    code with these libraries would make it, so that it can be used; one of another version is never found.
    """

    key: str
    finished: bool
    network: str
    seconds: float | None
    bytes: int
    current: bool = True


def entries() -> list[Entry]:
    """All that is kept, by key."""
    folders = sorted(path for path in root().glob("[!.]*") if path.is_dir())
    return [_entry(folder) for folder in folders]


def _entry(folder: Path) -> Entry:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if not (folder / artefact.META).exists():
        return Entry(folder.name, False, "", None, size)
    meta = read_json(folder / artefact.META)
    facts = meta["provenance"]
    return Entry(folder.name, True, meta["architecture"]["name"], facts["seconds"], size, _current(facts["made_of"]))


def _current(made_of: Mapping[str, Any]) -> bool:
    """Whether code and versions are those of now; of what another maker keeps here its versions alone tell."""
    if made_of["versions"] != environment()["versions"]:
        return False
    if "recipe" not in made_of or made_of["task"] not in TASKS:
        return True
    try:
        return bool(made_of["code"] == code(_trainers(made_of["network"]["name"], made_of["task"])))
    except OSError:  # a network that is no more
        return False


def clear(keys: Sequence[str] | None = None) -> int:
    """Remove these entries, or all; those that a process is training stay. Returns how many went."""
    gone = 0
    for half in root().glob(".*.gone"):  # of a removal that was killed
        shutil.rmtree(half, ignore_errors=True)
    for entry in entries():
        if keys is None or entry.key in keys:
            gone += _remove(root() / entry.key)
    return gone


def _remove(folder: Path) -> bool:
    lock = FileLock(f"{folder}.lock", timeout=0)
    try:
        with lock:
            remove(folder)
    except Timeout:
        return False
    return True
