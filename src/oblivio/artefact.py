"""A model in a folder: ``model.safetensors`` and ``model.json``, written so that no half of one is ever read as one.

The weights are written first; ``model.json`` comes last and holds their checksum, so a folder is a model from the
moment that file appears. Reading builds the architecture, replays the journal of surgery, then puts the weights in.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from oblivio.core import files
from oblivio.core.errors import BadInput
from oblivio.core.grads import like
from oblivio.core.run import environment
from oblivio.core.surgery import Journal, replay
from oblivio.networks import Architecture

SCHEMA = 1
META, WEIGHTS = "model.json", "model.safetensors"


@dataclass(frozen=True)
class Artefact:
    """A saved model: the module in evaluation mode, and what was written down with it."""

    module: nn.Module
    task: str
    classes: list[str] | None
    architecture: Architecture | None
    journal: Journal
    provenance: dict[str, Any]


@dataclass(frozen=True)
class _Meta:
    """``model.json``. A field that changes its meaning, or a new one that readers must know, raises ``SCHEMA``."""

    schema: int
    task: str
    classes: list[str] | None
    architecture: dict[str, Any] | None
    journal: Journal
    provenance: dict[str, Any]
    tied: dict[str, str]  # a tensor's further names, each with the one it is stored under
    sha256: str  # of model.safetensors


def save(
    folder: Path,
    module: nn.Module,
    *,
    task: str,
    architecture: Architecture | None = None,
    journal: Sequence[Mapping[str, Any]] = (),
    classes: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write ``module`` to ``folder``, which is made where it is missing and may hold other files.

    Args:
        folder: where to; it must not hold a model yet.
        module: its parameters and buffers are written; tensors that it shares are written once.
        task: the kind of model, such as ``"classification"``.
        architecture: how to build the module before surgery. Without one, ``read`` must be given such a module.
        journal: the surgery that ``module`` has been through since.
        classes: names of the outputs, in order.
        provenance: JSON facts of its making (method, settings, seed); release, versions, machine type, thread count
            and time are added.

    Raises:
        BadInput: the folder holds a model, or something here cannot be written as JSON or safetensors.
    """
    if (folder / META).exists():
        raise BadInput(f"{folder} already holds a model; choose another folder")
    tensors, tied = _split(module)
    meta = _Meta(
        schema=SCHEMA,
        task=task,
        classes=None if classes is None else list(classes),
        architecture=None if architecture is None else architecture.to_json(),
        journal=[dict(call) for call in journal],
        provenance=_circumstances() | dict(provenance or {}),
        tied=tied,
        sha256="",  # known once the weights are written
    )
    _check_json(asdict(meta))
    folder.mkdir(parents=True, exist_ok=True)
    files.write_tensors(folder / WEIGHTS, tensors)
    files.write_json(folder / META, asdict(replace(meta, sha256=_digest(folder / WEIGHTS))))


def read(folder: Path, base: nn.Module | None = None, factory: str | None = None) -> Artefact:
    """The model in ``folder``. Torch's random state is left as it was.

    Nothing that a folder names is run on its word alone: weights are never unpickled, and an architecture
    ``package.module:factory`` is imported and called only where the caller names the same one.

    Args:
        folder: what ``save`` wrote.
        base: the module before any surgery, for a model that was saved without its architecture. It is copied.
        factory: the user's own ``package.module:factory`` that the model was built by, where it was.

    Raises:
        BadInput: no model there, or half of one; a pickle; a newer schema; weights that are not the ones written or
            do not fit the module (the message names the first few); an architecture or surgery that is not found.
    """
    meta, path = _read_meta(folder), folder / WEIGHTS
    if _digest(path) != meta.sha256:
        raise BadInput(f"{path} is not the file that {META} was written for: the checksums differ")
    architecture = None if meta.architecture is None else Architecture.from_json(meta.architecture)
    nets = {"model": _before_surgery(folder, architecture, base, factory)}
    replay(nets, meta.journal)
    _assign(nets["model"], files.read_tensors(path), meta.tied, path)
    return Artefact(nets["model"].eval(), meta.task, meta.classes, architecture, meta.journal, meta.provenance)


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy the tensors of a safetensors file into ``module``, by name; one name is enough for a tensor it shares.

    Raises:
        BadInput: a pickle, a broken file, or tensors that do not fit (the message names the first few).
    """
    _, tied = _split(module)
    tensors = files.read_tensors(path)
    for alias, name in tied.items():
        if alias in tensors:
            twin = tensors.pop(alias)
            if not torch.equal(tensors.setdefault(name, twin), twin):
                raise BadInput(f"{path}: {alias} and {name} differ, but the module has one tensor for both")
    module.load_state_dict(_fitting(module, tensors, tied, path))


def _split(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of the state under its first name, and the first name for each further one."""
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise BadInput(f"the module's {name} is a {type(tensor).__name__}; only tensors can be saved and loaded")
        known = first.setdefault(id(tensor), name)
        if known == name:
            tensors[name] = tensor
        else:
            tied[name] = known
    return tensors, tied


def _circumstances() -> dict[str, Any]:
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return {"release": metadata.version("oblivio"), "time": time, **environment()}


def _check_json(facts: Mapping[str, Any]) -> None:
    for key, value in facts.items():
        try:
            json.dumps(value, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadInput(f"the model's {key} cannot be written as JSON: {error}") from None


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None


def _read_meta(folder: Path) -> _Meta:
    _check_folder(folder)
    path = folder / META
    value = files.read_json(path)
    schema = value.get("schema") if isinstance(value, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise BadInput(
            f"{path} has schema {schema}, written by a newer release; this one reads schema {SCHEMA}{_reader(value)}"
        )
    try:
        return TypeAdapter(_Meta).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise BadInput(f"{path} does not follow schema {SCHEMA}: {where}: {first['msg'].lower()}") from None


def _reader(meta: Mapping[str, Any]) -> str:
    """Which release reads it: the one that wrote it, where that says so."""
    facts = meta.get("provenance")
    release = facts.get("release") if isinstance(facts, dict) else None
    return f"; oblivio {release} or later reads it" if isinstance(release, str) else ""


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise BadInput(f"{folder} is not a saved model, which is a folder with {META} and {WEIGHTS}; no pickle is read")
    if not folder.exists():
        raise BadInput(f"{folder} does not exist")
    if not (folder / META).exists():
        half = f"; its {WEIGHTS} was left by something that did not finish" if (folder / WEIGHTS).exists() else ""
        raise BadInput(f"{folder} holds no model: there is no {META}{half}")


def _before_surgery(
    folder: Path, architecture: Architecture | None, base: nn.Module | None, factory: str | None
) -> nn.Module:
    if base is not None:
        return copy.deepcopy(base)
    if architecture is None:
        raise BadInput(f"{folder} was saved without its architecture; give the module that it was made from as base")
    if ":" in architecture.name and architecture.name != factory:
        raise BadInput(
            f"{folder} names the code {architecture.name} to build its model; it is run only if you say so: "
            f"factory={architecture.name!r}"
        )
    with torch.random.fork_rng(devices=[]):
        return architecture.build()


def _assign(module: nn.Module, tensors: Mapping[str, Tensor], tied: Mapping[str, str], path: Path) -> None:
    """Make the module's tensors those of the file: their values, their dtype, and which of them are one."""
    own = module.state_dict()
    given = _fitting(module, tensors, tied, path)
    # copied, because bits can depend on alignment and layout in memory, and only memory from torch is aligned
    aligned = {name: like(tensor.to(own[name].device, copy=True), own[name]) for name, tensor in given.items()}
    module.load_state_dict(aligned, assign=True)
    own = module.state_dict(keep_vars=True)
    for alias, name in tied.items():
        owner, _, attribute = alias.rpartition(".")
        setattr(module.get_submodule(owner), attribute, own[name])


def _fitting(
    module: nn.Module, tensors: Mapping[str, Tensor], tied: Mapping[str, str], path: Path
) -> dict[str, Tensor]:
    """``tensors`` under every name they have; those that the module does not match exactly are bad input."""
    own = module.state_dict()
    given = {**tensors, **{alias: tensors[name] for alias, name in tied.items() if name in tensors}}
    faults = [
        *(f"{name} is missing" for name in own.keys() - given.keys()),
        *(f"{name} is unexpected" for name in given.keys() - own.keys()),
        *(
            f"{name} is {tuple(given[name].shape)} where the module has {tuple(own[name].shape)}"
            for name in own.keys() & given.keys()
            if given[name].shape != own[name].shape
        ),
    ]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise BadInput(f"{path} does not fit the module: {'; '.join(sorted(faults)[:3])}{more}")
    return given
