"""Memory: a Source whose rows are its state, with their ids, so that a deletion request reaches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Batch, Ids, Source
from oblivio.sources.policies import last_of_each, policy_of
from oblivio.sources.rows import among, identities, places
from oblivio.sources.tensors import Tensors

if TYPE_CHECKING:
    from oblivio.core.problem import Problem
    from oblivio.core.step import Step

Columns: TypeAlias = dict[str, Tensor]


class Memory(Source):
    """Rows that were kept of another source, at most ``size``, drawn at random.

    Base of ``Buffer``, which is filled as rows pass, and ``Exemplars``, which is filled when an experience ends. The
    rows are stored as they are read, without augmentation.
    """

    random = True  # rows change places, so nothing about them is cached

    def __init__(self, size: int, name: str, batch: int | None) -> None:
        if size < 1:
            raise BadInput(f"a memory of {size} rows holds nothing; give 1 or more")
        self.capacity, self.name, self.size = size, name, batch

    def __len__(self) -> int:
        return int(self.state.get("filled", 0))

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """What a row holds: the columns of the source, and what is stored beside them."""
        return tuple(self.state.get("rows", ()))

    @property
    def ids(self) -> Ids:
        kept = self.state.get("ids", [])
        return np.array(kept if isinstance(kept, list) else kept.cpu().numpy())[: len(self)]

    @property
    def most(self) -> int:
        """How many rows it may hold."""
        return self.capacity

    @property
    def bytes(self) -> int:
        """What the rows that are held take."""
        return sum(v[: len(self)].numel() * v.element_size() for v in self.state.get("rows", {}).values())

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name == "id":
            into["id"] = identities(self.ids, rows)
            return
        try:
            column = self.state["rows"][name]
        except KeyError:
            raise BadInput(f"{self.name!r} has no column {name!r}; it has {', '.join(self.columns)}") from None
        into[name] = column.index_select(0, rows.to(column.device))

    def take(self, index: Any) -> Tensors:
        """A copy of some rows: the memory itself goes on changing."""
        at = places(index, len(self))
        return Tensors({n: v[at] for n, v in self.state["rows"].items()}, ids=_distinct(self.ids[at.numpy()]))

    def draw(self, n: int, step: Step) -> Batch:
        """As many different rows as there are, ``n`` at most."""
        order = torch.randperm(len(self), generator=step.rng(self.name), device=step.device)
        return self.batch(order[:n].cpu())

    def put(self, at: Tensor, ids: Any, columns: Columns) -> None:
        """Rows into these places: one each, those beyond the end following each other."""
        if "rows" not in self.state:
            self._lay_out(ids, columns)
        for name, value in columns.items():
            self.state["rows"][name].index_copy_(0, at.to(value.device), value.detach())
        if isinstance(self.state["ids"], list):
            for place, name in zip(at.tolist(), ids, strict=True):
                self.state["ids"][place] = str(name)
        else:
            self.state["ids"][at] = torch.as_tensor(ids)
        self.state["filled"] = max(len(self), int(at.max()) + 1 if len(at) else 0)

    def _lay_out(self, ids: Any, columns: Columns) -> None:
        whole = isinstance(ids, Tensor)
        self.state.update(
            filled=0,
            rows={n: v.new_zeros((self.capacity, *v.shape[1:])).detach() for n, v in columns.items()},
            ids=torch.zeros(self.capacity, dtype=torch.long) if whole else [""] * self.capacity,
        )

    def keep(self, at: Tensor) -> None:
        """Only the rows in these places, in this order; the memory of the others is overwritten."""
        for name, value in self.state["rows"].items():
            self.state["rows"][name] = _first(value, at.to(value.device))
        ids = self.state["ids"]
        if isinstance(ids, list):
            self.state["ids"] = [ids[i] for i in at.tolist()] + [""] * (len(ids) - len(at))
        else:
            self.state["ids"] = _first(ids, at)
        self.state["filled"] = len(at)

    def forget(self, rows: Source, problem: Problem) -> str:
        if not len(self):
            return ""
        gone = among(self.state["ids"], rows.ids)[: len(self)]
        if not gone.any():
            return ""
        self.keep(torch.from_numpy(np.flatnonzero(~gone)))
        return f"{gone.sum()} rows removed"

    def __repr__(self) -> str:
        drawn = "" if self.size is None else f", batch={self.size}"
        return f"{type(self).__name__}({self.capacity}, name={self.name!r}{drawn})"


class Buffer(Memory):
    """A memory that is filled as rows pass: after each update with the batch of ``of``.

    Args:
        size: rows at most.
        of: the source whose rows are offered.
        policy: ``reservoir`` (a uniform sample of all that passed), ``balanced`` (as many of every class) or
            ``recent`` (a ring).
        store: ``store(step)`` gives more columns for the batch of ``of``, such as the outputs seen before the update:
            see ``outputs``.
        name: batch-norm statistics move with passes over ``replay``.
        batch: rows drawn a step; None: as many as the stage's batch.
    """

    def __init__(
        self,
        size: int,
        of: str = "new",
        policy: str = "reservoir",
        store: Callable[[Step, str], Columns] | None = None,
        name: str = "replay",
        batch: int | None = None,
    ) -> None:
        super().__init__(size, name, batch)
        self.of, self.policy, self.store = of, policy, store
        policy_of(policy)

    def after(self, step: Step) -> None:
        more = {} if self.store is None else self.store(step, self.of)
        self.offer(step.drawn(self.of), step.key(f"{self.name}/offer"), more)

    def offer(self, batch: Batch, seed: int, more: Columns | None = None) -> None:
        """Let a batch pass; ``more`` are columns that are stored beside those of the source."""
        self.state.setdefault("filled", 0)
        self.state.setdefault("seen", 0)
        draw = np.random.Generator(np.random.PCG64(seed))
        at = policy_of(self.policy)(self.state, self.capacity, batch, draw)
        self.state["seen"] += len(batch)
        chosen = last_of_each(at)
        if len(chosen):
            plain = batch.source.batch(batch.rows[chosen])  # as it is read: a batch may have been augmented
            columns = {n: plain[n] for n in batch.source.columns if isinstance(plain[n], Tensor)}
            beside = {n: v[chosen.to(v.device)] for n, v in (more or {}).items()}
            self.put(torch.from_numpy(at)[chosen], plain["id"], {**columns, **beside})

    def __repr__(self) -> str:
        stored = "" if self.store is None else f", store={self.store.__name__}"
        drawn = "" if self.size is None else f", batch={self.size}"
        return f"Buffer({self.capacity}, of={self.of!r}, policy={self.policy!r}{stored}, name={self.name!r}{drawn})"


def outputs(step: Step, of: str) -> Columns:
    """What the model said of the batch before the update, as column ``z``."""
    return {"z": step.gathered(of, step.seen(of))}


class Twin(Source):
    """The rows of a memory, in draws of their own."""

    random = True

    def __init__(self, memory: Memory) -> None:
        self.memory, self.name, self.size = memory, f"{memory.name}_twin", memory.size

    def __len__(self) -> int:
        return len(self.memory)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the memory."""
        return self.memory.columns

    @property
    def ids(self) -> Ids:
        return self.memory.ids

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        self.memory.read(name, rows, into)

    def take(self, index: Any) -> Tensors:
        return self.memory.take(index)

    def draw(self, n: int, step: Step) -> Batch:
        order = torch.randperm(len(self), generator=step.rng(self.name), device=step.device)
        return self.batch(order[:n].cpu())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.memory!r})"


def _first(values: Tensor, at: Tensor) -> Tensor:
    out = torch.zeros_like(values)
    out[: len(at)] = values[at]
    return out


def _distinct(ids: Ids) -> Ids | None:
    """The ids, or None where a row is held twice."""
    return ids if len(np.unique(ids)) == len(ids) else None
