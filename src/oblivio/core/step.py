"""Step: one batch a source, and the only door to outputs and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads
from oblivio.core.problem import moving
from oblivio.core.seeds import mix
from oblivio.core.shards import placed
from oblivio.core.source import Batch, Source
from oblivio.core.surgery import Networks
from oblivio.core.term import On, Take, Term, source_name

if TYPE_CHECKING:
    from oblivio.core.opt import Opt
    from oblivio.core.problem import Problem
    from oblivio.core.where import Selection

Via = Callable[[Batch], Batch]


class Step:
    """The clock ``t`` of a stage, its batches, and forwards shared between terms.

    Derived steps (a chunk, other weights) share clock and problem and have forwards of their own. ``moves`` names the
    sources whose passes may update batch-norm statistics.
    """

    def __init__(
        self,
        problem: Problem,
        place: str,
        selection: Selection,
        batch: int | None,
        chunk: int | None = None,
        moves: tuple[str, ...] = (),
        taps: tuple[str, ...] = (),
        train: bool = True,
    ) -> None:
        self.problem, self.place, self.selection = problem, place, selection
        self.size, self.chunk, self.moves, self.taps = batch, chunk, frozenset(moves), taps
        self.team, self.device, self.task = problem.team, problem.team.device, problem.task
        self.t, self.end, self.epoch = 0, 1, 0
        self.loss: Tensor | None = None
        self.grads: Grads = {}
        self.was: Grads = {}
        self.opt: Opt | None = None
        self.norms: list[Any] = (
            [m for m in problem.nets.modules() if getattr(m, "track_running_stats", False)] if train else []
        )
        named = dict(problem.nets.named_parameters())
        self.weights: Grads = {n: named[n] for n in selection}
        self.substitute: Grads | None = None
        self._piece: tuple[int, int] = (0, 1)
        self._full = False
        self._clear()

    def _clear(self) -> None:
        self._batches: dict[str, Batch] = {}
        self._extras: dict[tuple[str, str], Tensor] = {}
        self._outs: dict[Any, Tensor] = {}
        self._taps: dict[Any, Tensor] = {}
        self._pieces: list[Step] = [self]

    def at_time(self, t: int) -> None:
        """Set the clock; batches, outputs and gradients of the time before are gone, and their memory is free."""
        self.t, self.loss, self.grads, self.was = t, None, {}, {}
        self._clear()

    # --- batches

    @property
    def progress(self) -> float:
        """How much of the stage is done, from 0 to 1."""
        return self.t / max(self.end, 1)

    def source(self, on: On) -> Source:
        """The source by name or object."""
        return self.problem.source(on)

    def supplied(self, t: Term) -> bool:
        """Whether no source that the term reads is empty."""
        return all(len(self.problem.source(on)) for on in t.reads)

    def drawn(self, on: On) -> Batch:
        """The whole batch of this step, over all processes and chunks, completed by the task."""
        name = source_name(on)
        if name not in self._batches:
            source = self.source(on)
            n = source.size or self.size or len(source)
            batch = source.draw(n, self)
            self._batches[name] = self.task.complete(batch, self.rng(name)) if self.task.random else batch
        return self._batches[name]

    def batch(self, on: On) -> Batch:
        """This process's and chunk's share of the batch."""
        i, of = self._piece
        if of == 1:
            return self.drawn(on)
        key = (source_name(on), i, of)
        if key not in self._outs:
            self._outs[key] = self.drawn(on).piece(i, of)  # type: ignore[assignment]
        return self._outs[key]  # type: ignore[return-value]

    def extra(self, on: On, name: str, make: Callable[[Batch, torch.Generator], Tensor]) -> Tensor:
        """A column drawn once for the whole batch, ``make(batch, generator)``, and this share's part of it."""
        full, (i, of) = self.drawn(on), self._piece
        key = (source_name(on), name)
        if key not in self._extras:
            self._extras[key] = make(full, self.rng(f"{source_name(on)}/{name}"))
        return self._extras[key][len(full) * i // of : len(full) * (i + 1) // of]

    @property
    def share(self) -> float:
        """What this chunk and process contribute of a value that reads no rows."""
        return 1 / self._piece[1]

    def count(self, on: On) -> int:
        """Rows of the whole batch: what means divide by."""
        return len(self.drawn(on))

    def key(self, name: str) -> int:
        """A seed that depends on (seed, turn, place, t, name) alone."""
        return mix(self.problem.seed, self.problem.turn, self.place, self.t, name)

    def rng(self, name: str) -> torch.Generator:
        """A generator that depends on (seed, turn, place, t, name) alone."""
        return torch.Generator(self.device).manual_seed(self.key(name))

    # --- outputs

    def out(self, on: On, net: str = "model", at: str | None = None, via: Via | None = None) -> Tensor:
        """Outputs of a net on a source's batch; ``at`` a snapshot (frozen, evaluation mode), ``via`` other inputs."""
        key = (source_name(on), net, at, via)
        if key not in self._outs:
            self._outs[key] = self._forward(on, net, at, via)
        return self._outs[key]

    def tap(self, on: On, layer: str, at: str | None = None, via: Via | None = None) -> Tensor:
        """The input of the layer ``"model.head"`` in the same forward as ``out``; declared in ``taps`` of the term."""
        layer = self.problem.layer(layer)
        net = layer.partition(".")[0]
        self.out(on, net, at, via)
        return self._taps[source_name(on), net, at, via, layer]

    def frozen(self, on: On, take: Take, at: str = "start") -> Tensor:
        """``take(out, batch)`` of a snapshot's outputs: from the cache by row, or computed where rows are random."""
        table = self.problem.frozen.get(self.problem.frozen_key(on, take, at))
        batch = self.batch(on)
        if table is not None:
            return table.index_select(0, batch.rows.to(table.device))
        with torch.no_grad():
            return self.problem.taken(take, self.out(on, at=at), batch)

    def seen(self, on: On, layer: str | None = None, net: str = "model") -> Tensor:
        """What the objective saw of this batch before the update: outputs, or the input of a tapped layer, detached."""
        key = (source_name(on), net, None, None)
        tap = None if layer is None else (*key, self.problem.layer(layer))
        values = [p._outs[key] if tap is None else p._taps[tap] for p in self._pieces]
        return torch.cat(values).detach()

    def gathered(self, on: On, seen: Tensor) -> Tensor:
        """What ``seen`` gave on each process, put together: one value a row of the whole batch."""
        if self.team.size == 1:
            return seen
        rows, rank, of = len(self.drawn(on)), self.team.rank, self.team.size
        whole = seen.new_zeros(rows, *seen.shape[1:])
        whole[rows * rank // of : rows * (rank + 1) // of] = seen
        self.team.total([whole])
        return whole

    def call(self, fn: Callable[[Networks], Tensor]) -> Tensor:
        """``fn(nets)`` at this step's weights."""
        nets = self.problem.nets
        return fn(nets) if self.substitute is None else self.problem.substituted(self.substitute, fn)

    def _forward(self, on: On, net: str, at: str | None, via: Via | None) -> Tensor:
        batch, name = self.batch(on) if via is None else via(self.batch(on)), source_name(on)
        handles = self._listen((name, net, at, via), net)
        if at is not None:
            self.problem.spend("forward", len(batch))
            try:
                return self.problem.at(at, lambda nets: self.task.forward(nets, net, batch))
            finally:
                for handle in handles:
                    handle.remove()
        self.problem.count(name, len(batch))
        still = self.norms and (name not in self.moves or self.substitute is not None or via is not None)
        for m in self.norms if still else ():
            m.track_running_stats = False
        try:
            with self.team.autocast():
                return self.call(lambda nets: self.task.forward(nets, net, batch))
        finally:
            for m in self.norms if still else ():
                m.track_running_stats = True
            for handle in handles:
                handle.remove()

    def _listen(self, key: tuple[Any, ...], net: str) -> list[Any]:
        def keep(layer: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                self._taps[(*key, layer)] = inputs[0]

            return hook

        if not self.taps:
            return []
        mine = [layer for layer in self.taps if layer.partition(".")[0] == net]
        return [self.problem.nets.get_submodule(layer).register_forward_pre_hook(keep(layer)) for layer in mine]

    # --- gradients

    def grad(self, t: Term, graph: bool = False) -> Grads:
        """The gradient of a term: masked by Where, added up over chunks and processes."""
        return t.grad(self, graph)

    def at(self, weights: Grads, graph: bool = False) -> Step:
        """The same batches at other weights; without ``graph`` the gradient ends at them."""
        other = copy.copy(self)
        other._outs, other._taps = {}, {}
        other.weights = weights if graph else {k: w.detach().requires_grad_() for k, w in weights.items()}
        other.substitute = other.weights
        return other

    def full(self) -> Step:
        """The same step over the whole batch, on every process: for terms that relate rows."""
        other = copy.copy(self)
        other._outs, other._taps, other._piece, other._full = {}, {}, (0, 1), True
        return other

    def differentiate(self, t: Term, graph: bool = False) -> Grads:
        """The gradient of a value; rules and descents come through ``grad``."""
        if self.substitute is not None and self.problem.in_place and not graph:
            return self._in_place(t)
        if graph or t.whole or self._full:
            return self._masked(self._of_whole(t, graph))
        pieces = self._split(t)
        if self.substitute is None:
            self._pieces = pieces
        for piece in pieces:
            value = t(piece)
            if value.requires_grad:
                piece._spend_backward()
                self._backward(value)
            if self.substitute is None:
                self._count_loss(value)
        grads = self._collect()
        self.team.total(grads.values())
        return self._masked(grads)

    def _in_place(self, t: Term) -> Grads:
        """The gradient at substituted weights, which lie in the places of the real ones until the backward is done."""
        named = dict(self.problem.nets.named_parameters())
        other = copy.copy(self)
        other.weights, other.substitute, other.moves = {n: named[n] for n in self.weights}, None, frozenset()
        with placed(other.weights, self.weights), moving(self.problem.nets, other.weights):
            return other.differentiate(t)

    def _backward(self, value: Tensor) -> None:
        """Gradients at the weights; those of sharded ones come by hooks, for which they must not be named."""
        value.backward(inputs=None if self.team.sharded else list(self.weights.values()))

    def _count_loss(self, value: Tensor) -> None:
        """What the objective is at this step, of all that was differentiated so far."""
        self.loss = value.detach() if self.loss is None else self.loss + value.detach()

    def _of_whole(self, t: Term, graph: bool) -> Grads:
        if self.chunk is not None and not self._full:
            raise BadInput(f"{t!r} relates rows to each other and cannot be split; leave out chunk={self.chunk}")
        step = self if self._full and graph else self.full()  # a graph that is kept can be shared
        value = t(step)
        if self.substitute is None and not graph:
            self._pieces = [step]
            self._count_loss(value)
        if not value.requires_grad:
            return {}
        step._spend_backward()
        if self.team.sharded:
            return self._of_shards(value, graph)
        values = torch.autograd.grad(value, list(self.weights.values()), create_graph=graph, allow_unused=True)
        return {k: v for k, v in zip(self.weights, values, strict=True) if v is not None}

    def _of_shards(self, value: Tensor, graph: bool) -> Grads:
        """The gradient of what every process has computed in full: each gives its share of it."""
        if graph:
            raise BadInput("a gradient that is differentiated again needs whole weights; leave out sharding='full'")
        self._backward(value / self.team.size)
        grads = self._collect()
        self.team.total(grads.values())
        return grads

    def _spend_backward(self) -> None:
        """Book the rows of every forward whose graph a gradient is about to pass."""
        rows = sum(len(out) for out in self._outs.values() if isinstance(out, Tensor) and out.requires_grad)
        self.problem.spend("backward", rows)

    def _split(self, t: Term) -> list[Step]:
        chunks = 1
        if self.chunk is not None:
            rows = max((self.count(on) for on in t.reads), default=1)
            chunks = -(-rows // (self.chunk * self.team.size))
        of = chunks * self.team.size
        if of == 1:
            self._outs.clear()
            self._taps.clear()
            return [self]
        pieces = []
        for i in range(chunks):
            piece = copy.copy(self)
            piece._outs, piece._taps, piece._piece = {}, {}, (self.team.rank * chunks + i, of)
            pieces.append(piece)
        return pieces

    def _collect(self) -> Grads:
        grads: Grads = {}
        for name, weight in self.weights.items():
            if weight.grad is not None:
                grads[name] = weight.grad
                weight.grad = None
            elif self.team.size > 1:  # a share without rows: the others may have some
                grads[name] = torch.zeros_like(weight)
        return grads

    def _masked(self, grads: Grads) -> Grads:
        for name, mask in self.selection.items():
            if mask is not None and name in grads:
                grads[name] = grads[name] * mask
        return grads
