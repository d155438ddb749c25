"""Trained weights that a job names: a safetensors file, or a folder that oblivio saved."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from oblivio import artefact
from oblivio.artefact import Artefact
from oblivio.core.errors import BadInput
from oblivio.jobs.folder import MODEL, interrupted
from oblivio.jobs.network import Network


def read(path: Path, network: Network | None, task: str) -> Artefact:
    """The model at ``path``, in evaluation mode.

    Args:
        path: a folder with a saved model, a run's folder, or a safetensors file.
        network: what a file's weights are put into; it may be None for a folder, which knows.
        task: of the job, which the model must be for.

    Raises:
        BadInput: an interrupted run, a pickle, weights that do not fit, or a model for another task or network.
    """
    if not path.is_dir():
        return _file(path, network, task)
    found = saved(path, base=None if network is None else network.architecture.build())
    if found.task != task:
        raise BadInput(f"{path} holds a model for {found.task}; the data is for {task}")
    if network is not None and found.architecture not in (None, network.architecture):
        raise BadInput(
            f"{path} holds a {found.architecture.name if found.architecture else 'model'} that differs from "
            f"model.name = {network.architecture.name} with its options and this data; leave model.name out"
        )
    return found


def saved(folder: Path, base: nn.Module | None = None, factory: str | None = None) -> Artefact:
    """The model in a folder of its own or of a run; see ``artefact.read``. An interrupted run's has none yet."""
    if interrupted(folder):
        raise BadInput(f"{folder} is an interrupted run; finish it first with: oblivio resume {folder}")
    return artefact.read(folder / MODEL if (folder / MODEL).is_dir() else folder, base, factory)


def _file(path: Path, network: Network | None, task: str) -> Artefact:
    if network is None:
        raise BadInput(f"model.weights = {path} is a file of weights; say with model.name which network they are for")
    module = network.architecture.build()
    artefact.load_weights(module, path)
    return Artefact(module.eval(), task, None, network.architecture, [], {})
