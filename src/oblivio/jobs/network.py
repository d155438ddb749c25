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
from oblivio.modules.fitted import refit
from oblivio.modules.preprocess import Spec
from oblivio.networks import Architecture


@dataclass(frozen=True)
class Network:
    """An architecture that is built with all it holds of its rows fitted to them."""

    architecture: Architecture

    def build(self, source: Source, seed: int) -> nn.Module:
        """A new module with weights drawn from ``seed`` and its fitted parts fitted to ``source``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, "weights"))
            module = self.architecture.build()
        refit(module, source)
        return module


def network(name: str, options: dict[str, Any], dataset: Dataset) -> Network:
    """The network called ``name`` for the rows of ``dataset``; a user's own takes rows and targets as they are.

    Raises:
        BadInput: as ``networks.build`` does.
    """
    if ":" in name:
        return Network(Architecture(name, dataset.inputs, dataset.outputs, options))
    spec, units = _as_spec(dataset.preprocess), dataset.task == "regression"
    return Network(Architecture(name, dataset.inputs, dataset.outputs, options, spec, units))


def _as_spec(preprocess: Preprocess) -> Spec:
    if not isinstance(preprocess, Layout):
        return preprocess
    return {name: list(places) for name, places in dataclasses.asdict(preprocess).items()}
