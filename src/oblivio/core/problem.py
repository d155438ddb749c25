"""Problem: what is worked on. Named nets, named sources, a task; one request to forget or one experience to learn."""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from oblivio.core import surgery
from oblivio.core.errors import BadInput, nearest
from oblivio.core.grads import Grads
from oblivio.core.known import Known
from oblivio.core.part import walk
from oblivio.core.seeds import generator
from oblivio.core.shards import placed
from oblivio.core.source import Batch, Source
from oblivio.core.task import Task
from oblivio.core.team import ALONE, Team
from oblivio.core.term import On, Take, Term
from oblivio.core.where import Where, as_where, matches

GOALS = ("retrained", "clean", "chance")
PASS = 512  # rows of a batch in passes over a whole source; fixed, since it can change last bits


def _source(value: Any, name: str = "") -> Source:
    """What ``oblivio.sources.as_source`` makes of it: a plug, for the core knows only what a source is."""
    return importlib.import_module("oblivio.sources").as_source(value, name)  # type: ignore[no-any-return]


class Nets(nn.ModuleDict):
    """Networks by name. ``forward(fn)`` is ``fn(self)``, so that any entry can run at substituted weights."""

    def forward(self, fn: Callable[[Nets], Any]) -> Any:
        return fn(self)

    def tensors(self) -> dict[str, Tensor]:
        """All weights and buffers by full name; tied ones once."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}


class Problem:
    """Networks, sources and the task that joins them.

    Args:
        model: the module that is asked for, or a dict of modules with ``"model"`` among them.
        task: a Task or its name; None chooses classification for integer labels and regression for floating ones.
        goal: like ``retrained`` without the rows (default), ``clean`` as if never poisoned, at ``chance``.
        seed: all randomness of a run derives from it.
        features: dotted path of the feature layer, whose input is meant; default: the last linear layer.
        records: what training left behind, by name.
        sources: ``forget=``, ``retain=``, ``test=``, ...; see ``as_source`` for what each may be.

    Raises BadInput for an empty forget set, ids that stand in both forget and retain, an unknown goal.
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, nn.Module],
        *,
        task: Task | str | None = None,
        goal: str = "retrained",
        seed: int = 0,
        features: str | None = None,
        records: Mapping[str, Any] | None = None,
        team: Team = ALONE,
        **sources: Any,
    ) -> None:
        if goal not in GOALS:
            raise BadInput(f"goal {goal!r} is unknown{nearest(goal, GOALS)}")
        self.nets = Nets({"model": model} if isinstance(model, nn.Module) else dict(model))
        self.goal, self.seed, self.turn, self.team = goal, seed, 0, team
        self.records: dict[str, Any] = dict(records or {})
        self.journal: surgery.Journal = []
        self.snapshots: dict[str, Grads] = {}
        self.frozen: dict[str, Tensor] = {}
        self.made: dict[str, dict[str, Tensor]] = {}
        self.moved = False  # whether the weights have left the start
        self._moving: set[str] | None = None  # in a run: what it may have moved so far
        self.passes: dict[str, int] = {}  # rows forwarded, by source
        self.work: dict[str, int] = {}  # steps, and rows through any forward and any backward
        self.known: Known | None = None  # where passes are kept for all copies; a comparison of methods sets it
        self._features = features
        given = {name: _source(value, name) for name, value in sources.items() if value is not None}
        self.sources: dict[str, Source] = {name: self._named(name, source) for name, source in given.items()}
        self._disjoint()
        tasks = importlib.import_module("oblivio.tasks")  # a plug: the core knows no task by name
        team.place(self.nets)
        self.task: Task = tasks.resolve(task, self)

    @classmethod
    def causal_lm(cls, model: Any, tokenizer: Any, **given: Any) -> Problem:
        """A request to a language model; see ``oblivio.data.language.request``, which this calls."""
        request = importlib.import_module("oblivio.data.language.request")  # a plug: the core knows no texts
        return request.request(model, tokenizer, **given)  # type: ignore[no-any-return]

    def _named(self, name: str, source: Source) -> Source:
        source = source.take(np.arange(len(source))) if source.name not in ("", name) else source
        source.name = name
        return source.to(self.team.device)

    def _disjoint(self) -> None:
        forget, retain = self.sources.get("forget"), self.sources.get("retain")
        if forget is not None and not len(forget):
            raise BadInput("forget: no rows; choose at least one row to forget")
        if forget is None or retain is None or not forget.comparable(retain):
            return
        common = np.intersect1d(forget.ids, retain.ids)
        if len(common):
            raise BadInput(
                f"forget and retain overlap in {len(common)} rows, first ids {common[:5].tolist()}; "
                "take them out of one of the two"
            )

    # --- weights

    @property
    def model(self) -> nn.Module:
        """The net that is asked for."""
        return self.nets["model"]

    @property
    def features(self) -> str:
        """The layer whose input are the features: named, or the last linear layer of the model."""
        layers, name = dict(self.model.named_modules()), self._features
        if name is not None and name not in layers:
            raise BadInput(f"features: the model has no layer {name!r}{nearest(name, layers)}")
        linear = [n for n, m in layers.items() if isinstance(m, nn.Linear)]
        if name is None and not linear:
            raise BadInput("the model has no linear layer to take features before; name one with features=")
        return f"model.{linear[-1] if name is None else name}".rstrip(".")

    def layer(self, name: str) -> str:
        """Full name of a tapped layer; ``"features"`` is the feature layer."""
        return self.features if name == "features" else name

    def weights(self, pattern: str = "*") -> dict[str, nn.Parameter]:
        """Weights by full name (``model.head.weight``); tied ones once. Raises BadInput where nothing matches."""
        named = dict(self.nets.named_parameters())
        found = {n: p for n, p in named.items() if matches(n, pattern)}
        if not found:
            some = ", ".join([*named][:8]) + " ..." * (len(named) > 8)
            raise BadInput(f"no weight matches {pattern!r}; there are {some}")
        return found

    def keep(self, name: str) -> None:
        """Take a snapshot of all weights and buffers; tied tensors once.

        In a run, weights that it has not moved are copied when it is about to: a frozen base has no second copy.
        """
        still = set() if self._moving is None else dict(self.nets.named_parameters()).keys() - self._moving
        self.snapshots[name] = {n: t.detach().clone() for n, t in self.nets.tensors().items() if n not in still}

    def move(self, names: Iterable[str] | None = None) -> None:
        """Say that these weights are about to change (default: any), so that every snapshot takes them first."""
        weights = dict(self.nets.named_parameters())
        names = list(weights) if names is None else names
        for kept in self.snapshots.values():
            kept.update({n: weights[n].detach().clone() for n in names if n not in kept})
        if self._moving is not None:
            self._moving = self._moving | set(names)

    def kept(self, name: str) -> Grads:
        """All tensors as they are in a snapshot."""
        return {n: t.detach() for n, t in self.nets.tensors().items()} | self.snapshots[name]

    def restore(self, name: str) -> None:
        """Put a snapshot's values back where names and shapes still fit."""
        with torch.no_grad():
            for n, t in self.nets.tensors().items():
                if n in self.snapshots[name]:
                    t.copy_(self.snapshots[name][n])

    def operate(self, op: Callable[..., None], **arguments: Any) -> None:
        """Change the structure by a registered surgery; it is journaled and replayed on loading."""
        before = {id(w): n for n, w in self.nets.named_parameters()}
        if not surgery.appends(op):
            self.move()
        surgery.operate(self.nets, self.journal, op, **arguments)
        self.nets.to(self.team.device)
        if surgery.appends(op):  # what joins is in every snapshot as it was born: there it does nothing yet
            named = {n: before.get(id(w)) for n, w in self.nets.named_parameters()}
            self._rename({old: n for n, old in named.items() if old is not None})
            self.move([n for n, old in named.items() if old is None])

    def _rename(self, names: Mapping[str, str]) -> None:
        """Weights have other names now, in snapshots too."""
        if self._moving is not None:
            self._moving = {names.get(n, n) for n in self._moving}
        self.snapshots = {s: {names.get(n, n): t for n, t in kept.items()} for s, kept in self.snapshots.items()}

    # --- sources

    def source(self, on: On) -> Source:
        """The source of this name (BadInput where there is none), or the source itself."""
        if isinstance(on, Source):
            return on.within(self)
        try:
            return self.sources[on]
        except KeyError:
            raise BadInput(f"the problem has no source {on!r}{nearest(on, self.sources)}") from None

    def make(self, name: str, /, **columns: Tensor) -> None:
        """Add a source in mid-run; it is saved with the run."""
        self.made[name] = columns
        self.sources[name] = self._named(name, _source(columns))

    # --- passes over whole sources, in evaluation mode

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """All modules in evaluation mode, and afterwards as they were."""
        training = [module for module in self.nets.modules() if module.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def at(self, snapshot: str, fn: Callable[[Nets], Tensor]) -> Tensor:
        """``fn(nets)`` at a snapshot's weights, frozen; ``"start"`` is the present while nothing has moved."""
        with torch.no_grad(), self.evaluating():
            if snapshot in self.snapshots:
                return self.substituted(self.snapshots[snapshot], fn)
            if snapshot == "start" and not self.moved:
                return fn(self.nets)
        raise BadInput(
            f"there is no snapshot {snapshot!r}{nearest(snapshot, self.snapshots)}; keep({snapshot!r}) first"
        )

    @property
    def in_place(self) -> bool:
        """Whether weights must lie in their places until the backward is done."""
        return self.team.sharded or self.task.recomputes(self.nets)

    def substituted(self, weights: Grads, fn: Callable[[Nets], Tensor]) -> Tensor:
        """``fn(nets)`` at other weights. Raises BadInput for a graph through weights that must lie in their places."""
        if not self.in_place:
            return functional_call(self.nets, weights, (fn,))  # type: ignore[no-any-return]
        if torch.is_grad_enabled():
            raise BadInput("a graph through other weights: leave out sharding='full' and checkpointing=True")
        with placed(self.nets.tensors(), weights):
            return fn(self.nets)

    def tabulate(self, on: On, fn: Callable[[Nets, Batch], Tensor], size: int = PASS) -> Tensor:
        """``fn(nets, batch)`` over all rows in order, in evaluation mode; shape (rows, ...)."""
        source = self.source(on)
        self.count(source.name, len(source))
        with self.evaluating():
            return torch.cat([fn(self.nets, batch) for batch in source.batches(size)])

    def count(self, on: str, rows: int) -> None:
        """Book forwarded rows, for the cost of the run."""
        self.passes[on] = self.passes.get(on, 0) + rows
        self.spend("forward", rows)

    def spend(self, what: str, amount: int) -> None:
        """Book work: ``steps`` of an optimiser, rows ``forward`` (at snapshots too) and ``backward``."""
        self.work[what] = self.work.get(what, 0) + amount

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is done meanwhile is not booked: an audit in mid-run is no cost of the run."""
        before = dict(self.passes), dict(self.work)
        try:
            yield
        finally:
            self.passes, self.work = before

    def freeze(self, on: On, take: Take) -> None:
        """Fill the cache of ``take(out, batch)`` of the start on ``on``; where rows are random, keep the start.

        So it does where a row's value is as wide as the outputs of a language model.
        """
        known = on in self.sources if isinstance(on, str) else True
        if not known or self.source(on).random or self.task.random or self._wide(on, take):
            if "start" not in self.snapshots:
                self.keep("start")
            return
        key = self.frozen_key(on, take, "start")
        if key not in self.frozen:

            def outputs(_: Nets, batch: Batch) -> Tensor:
                return self.at("start", lambda nets: self.taken(take, self.task.forward(nets, "model", batch), batch))

            self.frozen[key] = self.once(key.partition("|")[2], on, lambda: self.tabulate(on, outputs))

    def taken(self, take: Take, out: Tensor, batch: Batch) -> Tensor:
        """``take(out, batch)``; a word is what the task calls so, such as ``"score"``."""
        fn = getattr(self.task, take) if isinstance(take, str) else take
        return fn(out, batch)

    def _wide(self, on: On, take: Take) -> bool:
        """Whether a table of ``take`` would hold more than one number a row for outputs too wide for that."""
        if not self.task.wide or not len(self.source(on)):
            return False
        first = self.source(on).batch(torch.arange(1))
        with torch.no_grad(), self.evaluating():
            return self.taken(take, self.task.forward(self.nets, "model", first), first).dim() > 1

    def once(self, what: str, on: On, make: Callable[[], Any]) -> Any:
        """``make()``, or what it gave before at these weights to a copy of the problem, where such is kept.

        Its rows are booked either way, for a method's cost is what it takes alone.
        """
        if self.known is None:
            return make()
        source, tensors = self.source(on), [*self.nets.parameters(), *self.nets.buffers()]
        value, before = self.known.get(what, source, tensors, make)
        if before:
            self.count(source.name, len(source))
        return value

    def frozen_key(self, on: On, take: Take, at: str) -> str:
        """What determines a cached table: source, snapshot, and the code and settings of ``take``."""
        name = f"task.{take}" if isinstance(take, str) else getattr(take, "__qualname__", None)
        if name is not None and "<" in name:
            raise BadInput(f"{name} has no name of its own to key a cache by; define it at the top of a module")
        code = name if isinstance(take, str) else f"{take.__module__}.{name or repr(take)}"
        return f"{on if isinstance(on, str) else on.name}|{at}|{code}"

    def predict(self, on: On, net: str = "model") -> Tensor:
        """Served outputs over all rows; no gradient."""
        with torch.no_grad():
            return self.tabulate(on, lambda nets, batch: self.served(nets, batch, net))

    def served(self, nets: Nets, batch: Batch, net: str = "model", view: str = "served") -> Tensor:
        """The outputs that are served: a Wrap's ``predict``, else the forward; those that count for the task."""
        module = nets[net]
        serving = {**dict(nets.items()), net: module.predict} if isinstance(module, surgery.Wrap) else nets
        out = self.task.forward(serving, net, batch)  # type: ignore[arg-type]
        return self.task.view(out, batch, view)

    def qualities(self, on: On, views: Sequence[str] = ("served",)) -> dict[str, Tensor]:
        """The task's figure (accuracy, error) of every row under each view of the outputs, from one pass."""

        def each(nets: Nets, batch: Batch) -> Tensor:
            out = self.served(nets, batch, view="all")
            return torch.stack([self.task.quality(self.task.view(out, batch, view), batch) for view in views], 1)

        with torch.no_grad():
            return dict(zip(views, self.tabulate(on, each).unbind(1), strict=True))

    def score(self, on: On) -> float:
        """The mean of the task's figure (accuracy, error) over a source."""
        return float(self.qualities(on)["served"].double().mean())

    def gradient(self, t: Term, where: Where | str = "model.*", chunk: int = PASS) -> Grads:
        """The gradient of a term over its whole sources, in evaluation mode, at the present weights."""
        from oblivio.core.step import Step

        taps = tuple(dict.fromkeys(self.layer(tap) for _, part in walk(t) for tap in part.taps))
        selection, pieces = as_where(where).select(self), None if t.whole else chunk
        step = Step(self, "gradient", selection, None, pieces, taps=taps, train=False)
        with torch.enable_grad(), self.evaluating(), moving(self.nets, step.selection):
            return t.grad(step)

    def copy(self) -> Problem:
        """The same request on copies of the networks; sources are shared, being read only. Not of sharded weights."""
        if self.team.sharded:
            raise BadInput(
                "sharded weights are not copied: Run(plan, problem).go() changes them, save_model writes them"
            )
        other = copy.copy(self)
        other.nets = copy.deepcopy(self.nets)
        for name in ("sources", "records", "journal", "frozen", "made", "passes", "work", "_moving"):
            setattr(other, name, copy.copy(getattr(self, name)))
        other.snapshots = {name: dict(kept) for name, kept in self.snapshots.items()}
        return other


@contextlib.contextmanager
def moving(nets: Nets, names: Iterable[str]) -> Iterator[None]:
    """Only these weights need a gradient; afterwards as it was."""
    before = [(p, p.requires_grad) for p in nets.parameters()]
    named = dict(nets.named_parameters(remove_duplicate=False))
    for p, _ in before:
        p.requires_grad_(False)
    for name in names:
        named[name].requires_grad_(True)
    try:
        yield
    finally:
        for p, mode in before:
            p.requires_grad_(mode)


def rng(problem: Problem, *keys: int | str) -> torch.Generator:
    """A generator for passes outside a step: a function of (seed, turn, keys)."""
    return generator(problem.seed, problem.turn, *keys, device=problem.team.device)
