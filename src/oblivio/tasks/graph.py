"""Graphs: classes of nodes and links between them, by networks that pass messages over a graph the task holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.source import Batch
from oblivio.core.surgery import Networks
from oblivio.core.task import Task
from oblivio.networks._graph import Messages
from oblivio.tasks.classification import Binary, Classification


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph without loops. What is deleted gives a new graph, in which nodes keep their numbers.

    Attributes:
        x: features of the nodes, shape (nodes, columns).
        edges: pairs of node numbers, shape (2, edges); kept once each, the smaller number first, in rising order.

    Raises:
        BadInput: shapes that do not fit, an edge from a node to itself, or to a node that there is not.
    """

    x: Tensor
    edges: Tensor
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)  # by device; it follows from the rest

    def __post_init__(self) -> None:
        if self.x.dim() != 2 or not self.x.is_floating_point():
            raise BadInput(f"graph: x is {self.x.dtype} of shape {tuple(self.x.shape)}; give floats (nodes, columns)")
        keys = self._keys(pairs(self.edges.T, self.nodes)).unique()
        object.__setattr__(self, "edges", torch.stack([keys // self.nodes, keys % self.nodes]))

    @property
    def nodes(self) -> int:
        """How many nodes there are, deleted ones included."""
        return len(self.x)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Features, and every edge in both directions, shape (2, 2 * edges): what a network takes."""
        if device not in self._made:
            both = torch.cat([self.edges, self.edges.flip(0)], 1)
            self._made[device] = (self.x.to(device), both.to(device))
        made: tuple[Tensor, Tensor] = self._made[device]
        return made

    def without_nodes(self, nodes: Any) -> Graph:
        """All edges of these nodes are gone, so nobody hears of them; their own features stay, to ask for them by."""
        gone = torch.zeros(self.nodes, dtype=torch.bool).index_fill(0, numbers(nodes, self.nodes), True)
        return Graph(self.x, self.edges[:, ~gone[self.edges].any(0)])

    def without_edges(self, edges: Any) -> Graph:
        """These edges are gone, given as pairs of nodes in either order, shape (n, 2)."""
        left = torch.ones(self.edges.shape[1], dtype=torch.bool).index_fill(0, self.places(edges), False)
        return Graph(self.x, self.edges[:, left])

    def without_features(self, nodes: Any) -> Graph:
        """The features of these nodes are 0; their edges stay."""
        return Graph(self.x.index_fill(0, numbers(nodes, self.nodes), 0.0), self.edges)

    def places(self, edges: Any) -> Tensor:
        """Where these pairs stand among the edges, shape (n,). Raises BadInput for a pair that is no edge, or twice."""
        asked, known = self._keys(pairs(edges, self.nodes)), self._keys(self.edges.T)
        at = torch.searchsorted(known, asked).clamp(max=max(len(known) - 1, 0))
        absent = known[at] != asked if len(known) else torch.ones(len(asked), dtype=torch.bool)
        if bool(absent.any()):
            first = asked[absent][0]
            raise BadInput(
                f"the graph has no edge {int(first // self.nodes)}-{int(first % self.nodes)} ({int(absent.sum())} of "
                f"the {len(asked)} asked for are none); give pairs of nodes that an edge joins"
            )
        _once([f"{a}-{b}" for a, b in zip(asked // self.nodes, asked % self.nodes, strict=True)], "edge")
        return at

    def _keys(self, edges: Tensor) -> Tensor:
        """One number an edge, the same in either order; shape (n, 2) to (n,)."""
        return edges.min(1).values * self.nodes + edges.max(1).values


def numbers(nodes: Any, count: int) -> Tensor:
    """Node numbers, shape (n,). Raises BadInput for none, one that there is not, or one twice."""
    found = _integers(nodes, "nodes")
    if found.dim() != 1 or not len(found):
        raise BadInput(f"nodes are numbers, shape (n,), at least one; these have shape {tuple(found.shape)}")
    _there(found, count)
    _once(found.tolist(), "node")
    return found


def pairs(edges: Any, count: int) -> Tensor:
    """Pairs of node numbers, shape (n, 2). Raises BadInput for another shape, a node twice in a pair, or unknown."""
    found = _integers(edges, "edges")
    if found.dim() != 2 or found.shape[1] != 2:
        raise BadInput(f"edges are pairs of nodes, shape (n, 2); these have shape {tuple(found.shape)}")
    _there(found, count)
    loops = found[found[:, 0] == found[:, 1]]
    if len(loops):
        raise BadInput(f"an edge joins two nodes; {len(loops)} join node {int(loops[0, 0])} or others to themselves")
    return found


def _integers(values: Any, what: str) -> Tensor:
    try:
        found = torch.as_tensor(values).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{what} are whole numbers: {error}") from None
    if found.is_floating_point() and found.numel():
        raise BadInput(f"{what} are whole numbers; these are {found.dtype}")
    return found.long()


def _there(found: Tensor, count: int) -> None:
    strange = found[(found < 0) | (found >= count)]
    if len(strange):
        raise BadInput(f"the graph has no node {int(strange[0])}; its {count} nodes are 0 to {count - 1}")


def _once(names: Sequence[Any], what: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise BadInput(f"{what} {twice} is asked for more than once; name each {what} once")


class _OnGraph(Task):
    """What both tasks share: a network is called with all features and edges, and the rows asked are read off.

    Args:
        graph: what messages pass over, wherever outputs are computed: that after the deletion.
        before: the graph that the model was trained on. ``original`` is the same task on it, for those who may see
            what goes: the training of the original, a teacher, an attack that holds the deleted parts.
    """

    def __init__(self, graph: Graph | None = None, before: Graph | None = None) -> None:
        if graph is None:
            raise BadInput(f"the task {self.name} holds its graph: give task={type(self).__name__}(graph)")
        self.graph, self.before = graph, before or graph

    @property
    def original(self) -> Self:
        """The same task on the graph before the deletion."""
        return type(self)(self.before)

    def embed(self, nets: Networks, net: str, nodes: Tensor) -> Tensor:
        """What the network gives for these nodes, shape (n, outputs); ``nodes`` has shape (n,)."""
        x, edges = self.graph.on(nodes.device)
        module = nets[net]
        out: Tensor = module(x, edges, nodes) if isinstance(module, Messages) else module(x, edges)[nodes]
        return out


class Nodes(_OnGraph, Classification):
    """Classes of nodes: a row's ``x`` is a node's number, shape (n,), its ``y`` the class; outputs are logits (n, C).

    A network takes ``(features, edge_index)``, as those of PyTorch Geometric do, and gives every node's logits. One of
    ``oblivio.networks`` gives the rows' alone, so that what reads features (``step.tap``, probes) finds the rows.
    """

    name = "graph"

    def forward(self, nets: Networks, net: str, batch: Batch) -> Tensor:
        return self.embed(nets, net, batch["x"])

    def decode(self, embedded: Tensor) -> Tensor:
        """Outputs from what the network gives for the rows' nodes: here the same."""
        return embedded


class Links(_OnGraph, Binary):
    """Links: a row's ``x`` are two nodes, shape (n, 2), its ``y`` whether an edge joins them; outputs are log odds.

    A network gives every node's embedding; the log odds are the product of two. Rows whose ``x`` has shape (n,) are
    nodes, and get their embeddings.
    """

    name = "links"

    def forward(self, nets: Networks, net: str, batch: Batch) -> Tensor:
        x = batch["x"]
        embedded = self.embed(nets, net, x.flatten())
        return embedded if x.dim() == 1 else self.decode(embedded)

    def decode(self, embedded: Tensor) -> Tensor:
        """Log odds, shape (n,), from the embeddings of the rows' nodes, shape (2 n, d)."""
        a, b = embedded.unflatten(0, (-1, 2)).unbind(1)
        return (a * b).sum(1)


GraphTask = Nodes | Links


def graph_task(problem: Problem) -> GraphTask:
    """The task of the problem. Raises BadInput where that has no graph."""
    if not isinstance(problem.task, GraphTask):
        raise BadInput(f"a graph is needed: the task is {problem.task.name!r}; give task=Nodes(...) or Links(...)")
    return problem.task
