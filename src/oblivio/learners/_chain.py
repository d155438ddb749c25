"""The training of one order of one shard, stage after stage, in this process or in one of Ray's."""

from __future__ import annotations

import copy
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import mix
from oblivio.learners._folder import Folder
from oblivio.sources import Tensors


@dataclass(frozen=True)
class Chain:
    """What is needed to train the stages of one order; everything it reads and writes lies in ``path``.

    Attributes:
        model: the start of every shard.
        stage: the plan of a stage, by its number.
        keys: the files of all stages; those that are there are not trained again.
        pieces: the files of the slices in their order; empty text for a slice without rows.
        threads: of torch, while it trains.
    """

    path: Path
    model: nn.Module
    stage: Callable[[int], Stage]
    task: str
    seed: int
    shard: int
    order: int
    keys: Sequence[str]
    pieces: Sequence[str]
    threads: int


def train(chain: Chain) -> tuple[int, list[int]]:
    """Train the stages that are missing and write each. Returns rows passed, and which stages were trained."""
    with threads(chain.threads):
        folder, model, passed, trained = Folder(chain.path), copy.deepcopy(chain.model), 0, []
        for k, key in enumerate(chain.keys):
            if folder.has(key):
                put(model, folder.get(key))
                continue
            before = {n: t.detach().clone() for n, t in named(model).items()}
            passed += _stage(chain, folder, model, k)
            folder.put(key, {n: t for n, t in named(model).items() if not torch.equal(t, before[n])})
            trained.append(k)
    return passed, trained


def _stage(chain: Chain, folder: Folder, model: nn.Module, k: int) -> int:
    """One stage on the union of the first slices of the order; its seed is made of (shard, order, stage)."""
    parts = [folder.get(name) for name in chain.pieces[: k + 1] if name]
    if not parts:
        return 0
    rows = Tensors({n: torch.cat([part[n] for part in parts]) for n in parts[0]})
    seed = mix(chain.seed, chain.shard, chain.order, k)
    problem = Problem(model, task=chain.task, seed=seed, train=rows, retain=rows)
    Run(chain.stage(k), problem).go()
    if problem.journal:
        raise BadInput(f"stage {k} changes the structure of the model ({problem.journal[0]['op']}); do that before")
    return sum(problem.passes.values())


def named(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


@torch.no_grad()
def put(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy tensors into a model by name."""
    own = named(model)
    for name, value in tensors.items():
        own[name].copy_(value)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads of torch meanwhile: sums in another order have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def has_ray() -> bool:
    """Whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def train_all(chains: Sequence[Chain], workers: int | None) -> list[tuple[int, list[int]]]:
    """All chains: side by side with Ray where it is installed and there is more than one, else one after another."""
    if len(chains) < 2 or workers == 1 or not has_ray():
        return [train(chain) for chain in chains]
    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=workers or os.cpu_count(), include_dashboard=False, log_to_driver=False)
    task = ray.remote(num_cpus=chains[0].threads, max_retries=0)(train)
    found: list[tuple[int, list[int]]] = ray.get([task.remote(chain) for chain in chains])
    return found
