"""Graphs by name, and requests to forget some of their nodes, edges, features or links.

What goes, and what the sources of a request hold:

- ``node``: nodes that are trained on, with their edges and labels. ``forget`` are these nodes, ``retain`` the others.
- ``edge``: edges between nodes that are classified. ``forget`` are the training nodes at their ends, as they were;
  ``retain`` are all training nodes as they are now, since no label was asked to go.
- ``feature``: all features of nodes. ``forget`` are the training nodes among them, as they were; ``retain`` as above.
- ``link``: edges of a network that predicts edges. ``forget`` are these edges, as pairs of nodes; ``retain`` the other
  edges that are trained on, and as many pairs that no edge joins.

A model trained on ``retain`` is a reference. Wherever outputs are computed, messages pass over the graph that is left;
``task.original`` is the same task on the whole graph, for those who may see what goes.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput, nearest
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.core.source import Source
from oblivio.data.published import cache
from oblivio.sources import Tensors
from oblivio.tasks.graph import Graph, GraphTask, Links, Nodes, numbers, pairs

PLANETOID = {"cora": "Cora", "citeseer": "CiteSeer"}
EMBEDDING = 64  # outputs of a network that predicts links
HELD = {"test": 0.1, "valid": 0.05}  # the shares of edges that a network which predicts links is not trained on


@dataclass(frozen=True, eq=False)
class GraphData:
    """A graph whose nodes have classes.

    Attributes:
        name: for messages and the report.
        graph: features and edges.
        y: the class of every node, shape (nodes,).
        classes: how many there are.
        train, valid, test: numbers of the nodes, no two of which share one.
        notes: what there is to know, one sentence each.
        licence: as stated by its source.
    """

    name: str
    graph: Graph
    y: Tensor
    classes: int
    train: Tensor
    valid: Tensor
    test: Tensor
    notes: tuple[str, ...] = ()
    licence: str = ""


@dataclass(frozen=True, eq=False)
class GraphRequest:
    """What is to be forgotten of a graph.

    Attributes:
        kind: ``node``, ``edge``, ``feature`` or ``link``.
        task: on the graph that is left; ``task.original`` is on the whole one.
        inputs, outputs: for ``networks.build``.
        deleted: what goes: numbers of nodes, shape (n,), or pairs of them, shape (n, 2).
        sources: ``forget``, ``retain``, ``test``, ``valid``; ``train`` is what the original was trained on.
    """

    kind: str
    task: GraphTask
    inputs: tuple[int, ...]
    outputs: int
    deleted: Tensor
    sources: Mapping[str, Source]

    def problem(self, model: nn.Module, seed: int = 0) -> Problem:
        """The request on a trained model, ready for a method or an audit."""
        sources: dict[str, Any] = dict(self.sources)
        return Problem(model, task=self.task, seed=seed, **sources)


# --- graphs


def load_graph(name: str, split: str = "full") -> GraphData:
    """A citation graph: ``"cora"`` or ``"citeseer"``, or ``"blocks"``, which is made and needs no file.

    Args:
        name: of the graph; a file ``planetoid/<name>.npz`` is looked for in the folder that OBLIVIO_DATA names, then in
            the user's cache.
        split: ``"public"`` trains on the 20 nodes of a class that others do, ``"full"`` on all that are in neither
            validation nor test, since of 20 too few can go.

    Raises:
        BadInput: an unknown name or split, a file that is nowhere or cannot be read.
    """
    if split not in ("full", "public"):
        raise BadInput(f"there is no split {split!r} of a graph{nearest(split, ('full', 'public'))}")
    if name == "blocks":
        return block_model()
    if name not in PLANETOID:
        raise BadInput(f"there is no graph {name!r}{nearest(name, (*PLANETOID, 'blocks'))}")
    return _planetoid(name, split)


@once
def _planetoid(name: str, split: str) -> GraphData:
    from scipy.sparse import csr_matrix

    held = _arrays(_found(name))
    parts = (held["feat_data"], held["feat_indices"], held["feat_indptr"])
    x = torch.from_numpy(csr_matrix(parts, shape=tuple(held["feat_shape"])).toarray()).float()
    y, labelled = torch.from_numpy(held["y"]).long(), torch.from_numpy(held["has_label"])
    valid, test = (torch.from_numpy(held[f"{half}_mask"]) for half in ("val", "test"))
    train = torch.from_numpy(held["train_mask"]) if split == "public" else labelled & ~valid & ~test
    notes = (
        f"{PLANETOID[name]} (P. Sen et al., 2008), as given by Z. Yang, W. Cohen and R. Salakhutdinov (2016)",
        "validation and test are the published nodes; "
        + ("so are those trained on" if split == "public" else "all other nodes with a label are trained on"),
    )
    graph = Graph(x, torch.from_numpy(held["edges"]))
    halves = {half: mask.nonzero().flatten() for half, mask in (("train", train), ("valid", valid), ("test", test))}
    licence = "MIT (the repository); none stated for the data"
    return GraphData(name, graph, y, int(y.max()) + 1, **halves, notes=notes, licence=licence)


def block_model(
    nodes: int = 600,
    blocks: int = 4,
    inside: float = 0.06,
    between: float = 0.004,
    *,
    plain: bool = False,
    seed: int = 0,
) -> GraphData:
    """A stochastic block model: nodes of a block are joined with probability ``inside``, others with ``between``.

    A node's class is its block; its features are 16 numbers, those of the block's centre with normal noise, or, where
    nothing but the edges is to be known of it (``plain``), its own number, one-hot. Half of the nodes are trained on, a
    sixth is for validation and a third for test.
    """
    g = generator("block model", seed)
    y = torch.arange(nodes) % blocks
    x = torch.eye(nodes) if plain else torch.randn(blocks, 16, generator=g)[y] + torch.randn(nodes, 16, generator=g)
    a, b = torch.triu_indices(nodes, nodes, 1)
    joined = torch.rand(len(a), generator=g) < torch.where(y[a] == y[b], inside, between)
    order = torch.randperm(nodes, generator=g)
    cut = order.tensor_split([nodes // 2, nodes // 2 + nodes // 6])
    halves = {half: part.sort().values for half, part in zip(("train", "valid", "test"), cut, strict=True)}
    graph = Graph(x, torch.stack([a, b])[:, joined])
    return GraphData("blocks", graph, y, blocks, **halves, notes=(f"made from the seed {seed}",), licence="none needed")


def _found(name: str) -> Path:
    given = os.environ.get("OBLIVIO_DATA")
    folders = [*([Path(given)] if given else []), cache()]
    for folder in folders:
        if (path := folder / "planetoid" / f"{name}.npz").is_file():
            return path
    raise BadInput(
        f"planetoid/{name}.npz was not found; put it in the folder that OBLIVIO_DATA names, or in {cache()}: arrays "
        "feat_data, feat_indices, feat_indptr, feat_shape, edges, y, has_label and the three masks"
    )


def _arrays(path: Path) -> dict[str, Any]:
    wanted = ("feat_data", "feat_indices", "feat_indptr", "feat_shape", "edges", "y", "has_label",
              "train_mask", "val_mask", "test_mask")  # fmt: skip
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in wanted}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} cannot be read: {error}; remove it, or get it again") from None


# --- requests


def delete_nodes(data: GraphData, nodes: Any) -> GraphRequest:
    """Training nodes go, with their edges and labels.

    Raises:
        BadInput: a node that is not there, is named twice or is not trained on; or no training node would stay.
    """
    gone = numbers(nodes, data.graph.nodes)
    strange = gone[~torch.isin(gone, data.train)]
    if len(strange):
        raise BadInput(
            f"node {int(strange[0])} has no label that was trained on ({len(strange)} of the {len(gone)} asked for); "
            "ask for its features or its edges to go"
        )
    _some_left(len(data.train) - len(gone), "training node")
    return _classified(data, "node", data.graph.without_nodes(gone), gone, gone, _rest(data.train, gone))


def delete_edges(data: GraphData, edges: Any) -> GraphRequest:
    """Edges go, given as pairs of nodes in either order; the labels at their ends stay.

    Raises:
        BadInput: a pair that is no edge, or twice; no training node at an end; or no edge would stay.
    """
    gone, graph = pairs(edges, data.graph.nodes), data.graph.without_edges(edges)
    _some_left(graph.edges.shape[1], "edge")
    return _classified(data, "edge", graph, gone, _trained(data, gone.unique(), "at an end of these edges"), data.train)


def delete_features(data: GraphData, nodes: Any) -> GraphRequest:
    """All features of nodes go: they are 0 from now on. Their labels and edges stay.

    Raises:
        BadInput: a node that is not there, or twice; none that is trained on among them; or no features would stay.
    """
    gone, graph = numbers(nodes, data.graph.nodes), data.graph.without_features(nodes)
    _some_left(data.graph.nodes - len(gone), "node with features")
    return _classified(data, "feature", graph, gone, _trained(data, gone, "among these"), data.train)


def delete_links(data: GraphData, edges: Any, seed: int = 0) -> GraphRequest:
    """Edges go from a network that predicts edges.

    Of the edges, ``HELD`` are kept apart for test and validation, drawn from ``seed``; messages never pass over them.
    ``retain``, ``test`` and ``valid`` hold as many pairs that no edge joins, and ``train`` those of ``retain``.

    Raises:
        BadInput: a pair that is no edge, is one kept apart, or is named twice; or no edge would stay.
    """
    parts = link_split(data, seed)
    data.graph.places(edges)  # an edge that is kept apart is there, but is not trained on
    known = Graph(data.graph.x, parts["train"].T)
    try:
        gone = known.edges.T[known.places(edges)]
    except BadInput as error:
        raise BadInput(f"of the edges that are trained on, {error}") from None
    left = known.without_edges(gone)
    _some_left(left.edges.shape[1], "edge")
    apart = {half: parts[f"no {half}"] for half in ("train", "test", "valid")}
    sources = {
        "forget": _pairs(gone),
        "retain": _pairs(left.edges.T, apart["train"]),
        "train": _pairs(known.edges.T, apart["train"]),
        "test": _pairs(parts["test"], apart["test"]),
        "valid": _pairs(parts["valid"], apart["valid"]),
    }
    return GraphRequest("link", Links(left, known), (data.graph.x.shape[1],), EMBEDDING, gone, sources)


def link_split(data: GraphData, seed: int) -> dict[str, Tensor]:
    """Edges for ``train``, ``test`` and ``valid``, and as many pairs apart, ``no train`` ..., each of shape (n, 2)."""
    g, edges = generator("links", data.name, seed), data.graph.edges.T
    cuts = [round(len(edges) * HELD["test"]), round(len(edges) * (HELD["test"] + HELD["valid"]))]
    order = torch.randperm(len(edges), generator=g)
    cut = dict(zip(("test", "valid", "train"), edges[order].tensor_split(cuts), strict=True))
    none = _unjoined(data.graph, len(edges), g).tensor_split(cuts)
    return cut | dict(zip(("no test", "no valid", "no train"), none, strict=True))


def _unjoined(graph: Graph, count: int, g: torch.Generator) -> Tensor:
    """Pairs of nodes that no edge joins, each once, in random order."""
    n = graph.nodes
    known = graph.edges[0] * n + graph.edges[1]
    drawn = torch.randint(n, (4 * count, 2), generator=g).sort(1).values
    keys = drawn[drawn[:, 0] < drawn[:, 1]] @ torch.tensor([n, 1])
    keys = keys[~torch.isin(keys, known)].unique()
    if len(keys) < count:
        raise BadInput(f"the graph is too dense: {count} pairs that no edge joins are needed beside its edges")
    keys = keys[torch.randperm(len(keys), generator=g)[:count]]
    return torch.stack([keys // n, keys % n], 1)


KINDS: dict[str, Callable[..., GraphRequest]] = {
    "node": delete_nodes, "edge": delete_edges, "feature": delete_features, "link": delete_links,
}  # fmt: skip


def graph_request(dataset: str | GraphData, kind: str, share: float = 0.05, seed: int = 0) -> GraphRequest:
    """A request for a share of what there is, drawn from ``seed``.

    Args:
        dataset: a name that ``load_graph`` knows, or a graph.
        kind: ``"node"`` or ``"feature"``, a share of the training nodes; ``"edge"``, of all edges; ``"link"``, of the
            edges that a network which predicts links is trained on.
        share: above 0 and below 1.
        seed: of the draw, and of the edges that are kept apart for ``"link"``.

    Example:
        >>> request = graph_request("blocks", "node", share=0.1)
        >>> len(request.sources["forget"]), len(request.sources["retain"])
        (30, 270)

    Raises:
        BadInput: an unknown name or kind, a share that leaves nothing or takes nothing.
    """
    data = load_graph(dataset) if isinstance(dataset, str) else dataset
    if kind not in KINDS:
        raise BadInput(f"there is no kind of deletion {kind!r}{nearest(kind, KINDS)}")
    every = {"edge": data.graph.edges.T, "link": link_split(data, seed)["train"] if kind == "link" else data.train}
    pool = every.get(kind, data.train)
    count = round(share * len(pool))
    if not 0 < count < len(pool):
        raise BadInput(f"share={share} of {len(pool)} is {count}; something must go and something stay")
    chosen = pool[torch.randperm(len(pool), generator=generator("request", kind, seed))[:count]]
    return delete_links(data, chosen, seed) if kind == "link" else KINDS[kind](data, chosen)


def _classified(data: GraphData, kind: str, left: Graph, gone: Tensor, forget: Tensor, retain: Tensor) -> GraphRequest:
    was = "" if kind == "node" else " as it was"  # the node stays, so it is another record than the one retained
    sources = {
        "forget": _nodes(data, forget, was), "retain": _nodes(data, retain), "train": _nodes(data, data.train),
        "test": _nodes(data, data.test), "valid": _nodes(data, data.valid),
    }  # fmt: skip
    inputs = (data.graph.x.shape[1],)
    return GraphRequest(kind, Nodes(left, data.graph), inputs, data.classes, gone, sources)


def _nodes(data: GraphData, nodes: Tensor, was: str = "") -> Tensors:
    return Tensors({"x": nodes, "y": data.y[nodes]}, ids=np.array([f"{node}{was}" for node in nodes.tolist()]))


def _pairs(joined: Tensor, apart: Tensor | None = None) -> Tensors:
    """Pairs with an edge, and those without."""
    x = joined if apart is None else torch.cat([joined, apart])
    y = (torch.arange(len(x)) < len(joined)).long()
    return Tensors({"x": x, "y": y}, ids=np.array([f"{a}-{b}" for a, b in x.tolist()]))


def _rest(of: Tensor, without: Tensor) -> Tensor:
    return of[~torch.isin(of, without)]


def _trained(data: GraphData, nodes: Tensor, where: str) -> Tensor:
    found = nodes[torch.isin(nodes, data.train)]
    if not len(found):
        raise BadInput(f"no node {where} has a label that was trained on, so there is no training row to forget")
    return found


def _some_left(count: int, what: str) -> None:
    if count < 1:
        raise BadInput(f"no {what} would be left; keep at least one")
