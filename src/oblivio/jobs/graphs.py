"""Models on graphs: the original of a request, on the whole graph, and references on what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from oblivio import networks
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.core.task import Task
from oblivio.data.graphs import GraphData, GraphRequest, graph_request
from oblivio.jobs.references import seed_of
from oblivio.terms.fit import fit

STEPS = 200  # over the whole graph


@dataclass(frozen=True)
class GraphCase:
    """A request on a trained model (``start``), and models that were trained on what is left, as problems like it."""

    request: GraphRequest
    start: Problem
    references: list[Problem]


def graph_case(
    dataset: str | GraphData,
    kind: str,
    network: str = "gcn",
    *,
    share: float = 0.05,
    seed: int = 0,
    references: int = 1,
    **settings: Any,
) -> GraphCase:
    """A drawn request with its original and references, all trained now by ``settings`` of ``trained``.

    ``dataset``, ``kind`` and ``share`` are those of ``graph_request``, ``network`` is ``"gcn"`` or ``"gat"``.
    """
    request = graph_request(dataset, kind, share, seed)
    start = request.problem(original(request, network, seed, **settings), seed)
    others = [reference(request, network, seed, number, **settings) for number in range(references)]
    return GraphCase(request, start, [request.problem(model, seed) for model in others])


def original(request: GraphRequest, network: str = "gcn", seed: int = 0, **settings: Any) -> nn.Module:
    """The model that has to forget: trained on all rows, with messages over the whole graph."""
    return trained(request, network, request.task.original, request.sources["train"], seed, **settings)


def reference(
    request: GraphRequest, network: str = "gcn", seed: int = 0, number: int = 0, **settings: Any
) -> nn.Module:
    """A model that never saw what goes: trained on the retained rows, with messages over the graph that is left."""
    return trained(request, network, request.task, request.sources["retain"], seed_of(seed, number), **settings)


def trained(
    request: GraphRequest,
    network: str,
    task: Task,
    rows: Source,
    seed: int,
    *,
    steps: int = STEPS,
    lr: float = 0.01,
    wd: float = 5e-4,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network (by name, with its ``options``) after ``steps`` of Adam, each over all rows; in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, "weights"))
        model = networks.build(network, request.inputs, request.outputs, **(options or {}))
    problem = Problem(model, task=task, seed=seed, train=rows)
    Run(Descent(fit("train"), opt=adam(lr, wd=wd), steps=steps, batch=None), problem).go()
    return model.eval()
