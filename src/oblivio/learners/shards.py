"""Sharded: rows in shards, shards in slices, and a model a shard that learns slice after slice, as SISA and S3T do."""

from __future__ import annotations

import copy
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import environment
from oblivio.core.seeds import mix
from oblivio.learners._chain import Chain, named, put, threads, train_all
from oblivio.learners._folder import Folder
from oblivio.learners._orders import prefix
from oblivio.learners._rows import Id, Receipt, Rows, asked, content, read, sha256, unknown
from oblivio.sources import as_source

Serve: TypeAlias = Callable[[Sequence[nn.Module], Callable[[nn.Module], Tensor]], Tensor]
Retrain: TypeAlias = Literal["affected", "exhausted", "never"]
Place: TypeAlias = tuple[int, int]


def mean_outputs(models: Sequence[nn.Module], predict: Callable[[nn.Module], Tensor]) -> Tensor:
    """The mean of the shards' outputs: of their logits, where they classify."""
    return torch.stack([predict(model) for model in models]).mean(0)


@dataclass(frozen=True)
class _Shard:
    """``slices``: the file of each slice's rows and their ids; ``orders``: the files of each order's stages."""

    slices: tuple[tuple[str, tuple[Id, ...]], ...]
    orders: tuple[tuple[str, ...], ...]

    def pieces(self, order: Sequence[int]) -> list[str]:
        return [self.slices[j][0] for j in order]


class Sharded:
    """An exact learner made of runs: only what saw a row is trained again when it goes.

    A hash of (seed, id) places a row in a shard and a slice, so that its place does not depend on when it came. Of
    each order of a shard's slices, stage k trains on the union of the first k + 1 slices, from the weights of stage
    k - 1, with a seed made of (shard, order, stage); the rows of a slice lie in the order of a hash of their ids.

    With ``retrain="affected"`` the weights after any order of requests are, bit for bit, those of a new learner that
    learned what remains: on the same machine, with the same versions of the libraries and the same ``threads``. With
    ``"exhausted"`` and ``"never"`` every served model is, bit for bit, that stage of such a learner; which stages are
    left depends on what went.

    Args:
        model: where every shard starts; a copy is used.
        stage: ``stage(k)`` is the plan of stage k; it reads the source ``train``.
        task: classification, binary, multilabel or regression.
        shards, slices: how many.
        orders: orders of the slices, each of which trains models of its own; default: the one from first to last.
        serve: ``serve(models, predict)`` gives the outputs from the models of the shards.
        retrain: after a deletion the stages that saw the rows are trained again at once (``affected``); or they are
            dropped, and a shard is trained when nothing of it is left (``exhausted``), or when asked (``never``).
        seed: of everything random.
        folder: where rows and stages lie; default: a temporary folder, gone with the learner. A request that is cut
            off has not happened; asked again, it goes on with the stages that were trained.
        workers: processes, with Ray (the extra ``ray``), of which a local one is started where none runs, and stays;
            1 trains in this process, as do all where Ray is not installed. Workers on other machines need ``folder``
            to be shared. Default: one a core.
        threads: of torch in each worker.
        assign: ``assign(id)`` gives shard and slice, in place of the hash; it may depend on nothing else.

    Raises:
        BadInput: orders that are no orders of the slices, or a folder that holds a learner.
    """

    guarantee = "exact"

    def __init__(
        self,
        model: nn.Module,
        stage: Callable[[int], Stage],
        *,
        task: str = "classification",
        shards: int = 5,
        slices: int = 6,
        orders: Sequence[Sequence[int]] | None = None,
        serve: Serve = mean_outputs,
        retrain: Retrain = "affected",
        seed: int = 0,
        folder: str | Path | None = None,
        workers: int | None = None,
        threads: int = 1,
        assign: Callable[[Id], Place] | None = None,
    ) -> None:
        self.start, self.stage, self.task, self.serve = copy.deepcopy(model), stage, task, serve
        self.shards, self.slices, self.seed, self.retraining = shards, slices, seed, retrain
        self.workers, self.threads, self.assign = workers, threads, assign
        self.orders = tuple(tuple(order) for order in orders or [range(slices)])
        if wrong := [order for order in self.orders if sorted(order) != list(range(slices))]:
            raise BadInput(f"orders: {wrong[0]} does not name each of the {slices} slices once")
        self.folder = Folder(None if folder is None else Path(folder))
        self.folder.unused()
        self.kinds = ""
        empty = _Shard((("", ()),) * slices, ((),) * len(self.orders))
        self._set((empty,) * shards)

    # --- requests

    @property
    def ids(self) -> list[Id]:
        """Of all rows that are learned."""
        return list(self._place)

    def learn(self, rows: Any) -> Receipt:
        """Learn rows, anything that ``as_source`` takes, with ids; every shard they fall in is trained from there.

        Raises:
            BadInput: an id that is learned already, or other columns than before. Nothing was changed.
        """
        since = time.monotonic()
        new = unknown(read(rows), self._place)
        if self._place:
            new.alike(self.kinds)
        self.kinds = new.kinds
        joining: dict[Place, list[int]] = {}
        for i, name in enumerate(new.ids):
            joining.setdefault(self.place(name), []).append(i)
        changed = {at: self._merged(at, new.take(places)) for at, places in joining.items()}
        return self._settle(changed, since, train=True, learned=new.ids)

    def forget(self, ids: Any) -> Receipt:
        """Remove rows, and every stage that saw them; what ``retrain`` says is trained again.

        Raises:
            BadInput: an id that was never learned or comes twice. Nothing was changed.
        """
        since = time.monotonic()
        gone = asked(ids, self._place)
        leaving: dict[Place, set[Id]] = {}
        for name in gone:
            leaving.setdefault(self._place[name], set()).add(name)
        changed = {at: self._rows(at).without(names) for at, names in leaving.items()}
        return self._settle(changed, since, train=self.retraining == "affected", removed=gone)

    def retrain(self) -> Receipt:
        """Train every stage that is missing, on what remains."""
        return self._settle({}, time.monotonic(), train=True, everywhere=True)

    def predict(self, x: Any) -> Tensor:
        """Served outputs for inputs of shape (n, ...), or anything that ``as_source`` takes.

        Raises:
            BadInput: no shard has a model left.
        """
        source = as_source(x, "asked")
        models = [self.model(*at) for at in self.served]
        if not models:
            raise BadInput("no shard has a model: learn rows, or retrain() what remains")
        with threads(self.threads):
            return self.serve(models, lambda net: Problem(net, task=self.task, asked=source).predict("asked"))

    # --- models

    @property
    def served(self) -> list[tuple[int, int, int]]:
        """(shard, order, stages) of what is served: of each shard the longest order left, the first of equals."""
        left = [self._left(shard) for shard in self._shards]
        return [(s, lengths.index(max(lengths)), max(lengths)) for s, lengths in enumerate(left) if any(lengths)]

    def _left(self, shard: _Shard) -> list[int]:
        """Stages of each order; 0 where none of them has seen a row."""
        seen = [any(shard.pieces(o)[: len(keys)]) for o, keys in zip(self.orders, shard.orders, strict=True)]
        return [len(keys) * any_rows for keys, any_rows in zip(shard.orders, seen, strict=True)]

    def model(self, shard: int, order: int, stages: int) -> nn.Module:
        """The model of a shard after so many stages of an order, in evaluation mode.

        Raises:
            BadInput: so many stages are not left.
        """
        keys = self._shards[shard].orders[order]
        if not 0 <= stages <= len(keys):
            raise BadInput(f"shard {shard} has {len(keys)} stages of order {order}, not {stages}")
        last = keys[stages - 1] if stages else ""
        if last not in self._models:
            model = copy.deepcopy(self.start)
            for key in keys[:stages]:
                put(model, self.folder.get(key))
            self._models[last] = model.eval()
        return self._models[last]

    # --- rows

    def place(self, name: Id) -> Place:
        """Shard and slice of a row, by its id alone."""
        if self.assign is not None:
            return self.assign(name)
        return mix(self.seed, "shard", name) % self.shards, mix(self.seed, "slice", name) % self.slices

    def _rows(self, at: Place) -> Rows:
        name, ids = self._shards[at[0]].slices[at[1]]
        return Rows(list(ids), self.folder.get(name))

    def _merged(self, at: Place, new: Rows) -> Rows:
        """With the rows that the slice has, in the order of a hash of their ids."""
        rows = self._rows(at).joined(new) if self._shards[at[0]].slices[at[1]][0] else new
        return rows.take(sorted(range(len(rows)), key=lambda i: (mix(self.seed, "row", rows.ids[i]), str(rows.ids[i]))))

    # --- one request

    def _settle(
        self,
        changed: Mapping[Place, Rows],
        since: float,
        *,
        train: bool,
        everywhere: bool = False,
        learned: Sequence[Id] = (),
        removed: Sequence[Id] = (),
    ) -> Receipt:
        """Slices written, stages cut, chains trained, the pointer switched: in this order."""
        old, slices = self._shards, [list(shard.slices) for shard in self._shards]
        for (s, j), rows in changed.items():
            slices[s][j] = (self._stored(rows), tuple(rows.ids))
        touched = {s: {j for i, j in changed if i == s} for s, _ in changed}
        new = [_Shard(tuple(slices[s]), self._cut(shard, touched.get(s, set()))) for s, shard in enumerate(old)]
        todo = {s for s in touched if train or (self.retraining == "exhausted" and not any(self._left(new[s])))}
        trained, passed = self._train(new, set(range(self.shards)) if everywhere else todo)
        self._write(new)
        self._set(tuple(new))
        self.folder.clean()
        ends = [(s, b, len(new[s].orders[b]), len(old[s].orders[b])) for s in touched for b in range(len(self.orders))]
        dropped = [_words(s, b, range(now, before)) for s, b, now, before in ends if now < before]
        return Receipt(learned, removed, trained, dropped, passed, time.monotonic() - since)

    def _stored(self, rows: Rows) -> str:
        """The file of a slice; empty text where it has no rows."""
        name = rows.digest() if len(rows) else ""
        if name and not self.folder.has(name):
            self.folder.put(name, rows.columns)
        return name

    def _cut(self, shard: _Shard, touched: set[int]) -> tuple[tuple[str, ...], ...]:
        """Of each order the stages that saw none of these slices."""
        return tuple(keys[: prefix(o, touched)] for o, keys in zip(self.orders, shard.orders, strict=True))

    def _train(self, new: list[_Shard], todo: set[int]) -> tuple[list[str], int]:
        """Fill up the orders of these shards, in place."""
        chains = []
        for s in sorted(todo):
            keys = tuple(self._keys(new[s], s, b) for b in range(len(self.orders)))
            whole = _Shard(new[s].slices, keys)
            chains += [self._chain(whole, s, b) for b in range(len(keys)) if len(keys[b]) > len(new[s].orders[b])]
            new[s] = whole
        done = train_all(chains, self.workers)
        words = [_words(c.shard, c.order, stages) for c, (_, stages) in zip(chains, done, strict=True) if stages]
        return words, sum(rows for rows, _ in done)

    def _keys(self, shard: _Shard, s: int, b: int) -> tuple[str, ...]:
        """Names of an order's stages, each a digest of what determines its weights; none in a shard without rows."""
        pieces, kept = shard.pieces(self.orders[b]), shard.orders[b]
        if not any(pieces):
            return ()
        facts = [self._settings, environment()["machine"], environment()["versions"], s, b]
        rest = range(len(kept), self.slices)
        return (*kept, *(sha256(json.dumps([*facts, pieces[: k + 1]]).encode()) for k in rest))

    def _chain(self, shard: _Shard, s: int, b: int) -> Chain:
        pieces = shard.pieces(self.orders[b])
        return Chain(self.folder.path, self.start, self.stage, self.task, self.seed, s, b, shard.orders[b], pieces,
                     self.threads)  # fmt: skip

    # --- the state

    def _set(self, shards: tuple[_Shard, ...]) -> None:
        self._shards = shards
        self._place = {name: (s, j) for s, shard in enumerate(shards) for j, (_, ids) in enumerate(shard.slices)
                       for name in ids}  # fmt: skip
        self._models: dict[str, nn.Module] = {}

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        return {
            "model": sha256(*(content(v) for v in named(self.start).values())),
            "stages": [repr(self.stage(k)) for k in range(self.slices)],
            "task": self.task,
            "shards": self.shards,
            "orders": [list(order) for order in self.orders],
            "seed": self.seed,
            "threads": self.threads,
            "assign": getattr(self.assign, "__qualname__", None),
        }

    def _write(self, shards: Sequence[_Shard], folder: Folder | None = None) -> None:
        facts = {
            "kinds": self.kinds,
            "shards": [{"slices": [[n, list(ids)] for n, ids in s.slices], "orders": s.orders} for s in shards],
        }
        (folder or self.folder).switch("sharded", self._settings, facts, _files(shards))

    def save(self, folder: str | Path) -> None:
        """Write the state, rows and stages to another folder. Raises BadInput where a learner lies there."""
        other = Folder(Path(folder))
        other.unused()
        for name in _files(self._shards):
            other.put(name, self.folder.get(name))
        self._write(self._shards, other)

    def load(self, folder: str | Path) -> Sharded:
        """Take the state in a folder, and from now on keep it there; the learner must be made as that one was.

        Raises:
            BadInput: no learner there, or one of other settings.
        """
        place = Folder(Path(folder))
        facts = place.read("sharded", self._settings)
        self.folder, self.kinds = place, facts["kinds"]
        shards = []
        for each in facts["shards"]:
            slices = tuple((name, tuple(ids)) for name, ids in each["slices"])
            shards.append(_Shard(slices, tuple(tuple(keys) for keys in each["orders"])))
        self._set(tuple(shards))
        return self


def _files(shards: Sequence[_Shard]) -> set[str]:
    """All that a state stands on."""
    rows = {name for shard in shards for name, _ in shard.slices if name}
    return rows | {key for shard in shards for keys in shard.orders for key in keys}


def _words(shard: int, order: int, stages: Sequence[int]) -> str:
    return f"shard {shard}, order {order}, stages {stages[0]} to {stages[-1]}"
