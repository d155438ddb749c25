"""Problems on graphs: nodes, edges or features of a citation graph go; their models are kept as all others are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import nn

from oblivio import artefact
from oblivio.audits.subjects import Modules
from oblivio.core.run import environment
from oblivio.core.source import Source
from oblivio.data.graphs import GraphRequest, graph_request
from oblivio.jobs import cache
from oblivio.jobs.graphs import STEPS, trained
from oblivio.jobs.network import Network
from oblivio.jobs.references import seed_of
from oblivio.networks import Architecture
from oblivio.problems.case import Case
from oblivio.problems.pool import made_records
from oblivio.problems.table import Spec
from oblivio.tasks.graph import Graph, GraphTask


@dataclass(frozen=True)
class Citations:
    """What a set-up starts from: the name of a graph and the seed of the draw."""

    dataset: str
    seed: int


def deleted(pool: Citations, kind: str, share: float = 0.05) -> GraphRequest:
    """A ``share`` of the training nodes, of the edges, or of the training nodes' features goes, by ``kind``."""
    return graph_request(pool.dataset, kind, share, pool.seed)


def case(of: Spec, seed: int, references: int, records: Sequence[str] = ()) -> Case:
    """The trained original, with messages over the whole graph, and models trained on the graph that is left."""
    request = deleted(Citations(of.dataset, seed), **of.settings)
    architecture = Architecture(of.network, request.inputs, request.outputs, of.options)
    steps, train = int(of.recipe.get("steps", STEPS)), request.sources["train"]
    model, place = _kept(request, architecture, request.task.original, train, seed, steps)
    start = request.problem(model, seed)
    start.records.update(made_records(records, place, model, request.task.original, train, seed))
    retain = request.sources["retain"]
    nets: list[Modules] = [
        {"model": _kept(request, architecture, request.task, retain, seed_of(seed, i), steps)[0]}
        for i in range(references)
    ]
    return Case(start, nets, Network(architecture))


def outline(of: Spec, seed: int) -> Case:
    """The request on a network that has learned nothing."""
    request = deleted(Citations(of.dataset, seed), **of.settings)
    architecture = Architecture(of.network, request.inputs, request.outputs, of.options)
    return Case(request.problem(architecture.build(), seed), [], Network(architecture))


def _kept(request: GraphRequest, architecture: Architecture, task: GraphTask, rows: Source, seed: int,
          steps: int) -> tuple[nn.Module, Path]:  # fmt: skip
    """A model from the cache, or trained now and kept there; and its folder."""
    files = ("jobs/graphs.py", f"networks/{architecture.name}.py", "tasks/graph.py")
    made_of = {
        "rows": cache.digest(rows), "graph": _digest(task.graph), "task": task.name, "steps": steps, "seed": seed,
        "network": architecture.to_json(), "code": cache.code(files), **environment(),
    }  # fmt: skip
    folder = cache.place(made_of)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / artefact.META).exists():
            settings: dict[str, Any] = {"steps": steps, "options": architecture.options}
            model = trained(request, architecture.name, task, rows, seed, **settings)
            facts = {"seconds": None, "rows": None, "made_of": made_of}
            artefact.save(folder, model, task=task.name, architecture=architecture, provenance=facts)
    return artefact.read(folder).module, folder


def _digest(graph: Graph) -> str:
    hashed = hashlib.sha256()
    for part in (graph.x, graph.edges):
        hashed.update(f"{part.dtype} {tuple(part.shape)}".encode())
        hashed.update(part.contiguous().numpy().tobytes())
    return hashed.hexdigest()
