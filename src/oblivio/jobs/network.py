"""The network of a job: how it is built, and what in it is fitted to the rows it is trained on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.data.dataset import Dataset, Layout, Preprocess
from oblivio.data.fitting import fit_preprocess
from oblivio.modules.preprocess import Spec
from oblivio.networks import Architecture


@dataclass(frozen=True)
class Network:
    """An architecture, and what must be fitted in front of it: for a user's own nothing, it takes rows as they are."""

    architecture: Architecture
    preprocess: Preprocess = None

    def build(self, source: Source, seed: int) -> nn.Module:
        """A new module with weights drawn from ``seed`` and its preprocessing fitted to ``source``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, "weights"))
            module = self.architecture.build()
        if self.preprocess is not None:
            module.prepare = fit_preprocess(self.preprocess, source)
        return module


def network(name: str, options: dict[str, Any], dataset: Dataset) -> Network:
    """The network called ``name`` for the rows of ``dataset``. Raises BadInput as ``networks.build`` does."""
    preprocess = None if ":" in name else dataset.preprocess
    unfitted = _as_spec(preprocess)
    return Network(Architecture(name, dataset.inputs, dataset.outputs, options, unfitted), preprocess)


def recovered(architecture: Architecture | None, dataset: Dataset) -> Network | None:
    """The network of a model that was saved: what is fitted in front of it is fitted anew in a reference."""
    if architecture is None:
        return None
    return Network(architecture, None if architecture.preprocess is None else dataset.preprocess)


def _as_spec(preprocess: Preprocess) -> Spec:
    if not isinstance(preprocess, Layout):
        return preprocess
    return {name: list(places) for name, places in dataclasses.asdict(preprocess).items()}
