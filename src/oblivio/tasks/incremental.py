"""Classification in experiences: which outputs count, in one place for all methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Batch
from oblivio.core.surgery import Networks
from oblivio.modules.masked import MASKED
from oblivio.tasks.classification import Classification

SCENARIOS = ("class", "task", "domain")
ACTIVE = ("seen", "all", "current")


class Outputs:
    """Which outputs count, from the experiences that came so far.

    In the scenario ``class`` one output is a class, and those seen so far are served; in ``task`` every row says by its
    column ``task`` which ones may answer; in ``domain`` all always count. A task that never came leaves all in play.

    Args:
        scenario: ``class``, ``task`` or ``domain``.
        active: what the training loss of the scenario ``class`` uses: all classes ``seen`` so far, ``all`` outputs, or
            those of the ``current`` experience.
    """

    def __init__(self, scenario: str, active: str = "seen") -> None:
        if scenario not in SCENARIOS:
            raise BadInput(f"there is no scenario {scenario!r}{nearest(scenario, SCENARIOS)}")
        if active not in ACTIVE:
            raise BadInput(f"active={active!r}: the training loss uses the outputs {', '.join(ACTIVE)}")
        self.scenario, self.active = scenario, active
        self.came: list[dict[int, set[int]]] = []  # of every experience the classes of each of its tasks
        self._masks: dict[Any, Tensor | None] = {}

    def begin(self, tasks: Mapping[int, Iterable[int]]) -> None:
        """An experience begins, with the classes of each of its tasks; mostly it has one."""
        self.came.append({task: set(classes) for task, classes in tasks.items()})
        self._masks = {}

    def but(self, active: str) -> Outputs:
        """The same experiences, and other outputs in the training loss."""
        other = Outputs(self.scenario, active)
        other.came = self.came
        return other

    def columns(self, which: str) -> Tensor | None:
        """The outputs that count in a view that is the same for all rows, in order; None where all do.

        ``seen``: so far; ``current``: in this experience; ``old``: before it; ``served``, ``train``.
        """
        which = self._resolved(which)
        if which == "all" or self.scenario == "domain":
            return None
        before, now = _classes(self.came[:-1]), _classes(self.came[-1:])
        chosen = {"old": before, "current": now, "seen": before | now}[which]
        return torch.tensor(sorted(chosen), dtype=torch.long)  # also where there are none: the first has no old ones

    @property
    def heads(self) -> list[Tensor | None]:
        """The outputs that were learned before this experience, in groups that compete: by task where tasks are known.

        None stands for all outputs.
        """
        if self.scenario == "domain":
            return [None]
        before = self.came[:-1]
        groups = _by_task(before).values() if self.scenario == "task" else [_classes(before)]
        return [torch.tensor(sorted(classes)) for classes in groups if classes]

    def _resolved(self, which: str) -> str:
        if which == "served":
            return {"class": "seen", "task": "task", "domain": "all"}[self.scenario]
        if which == "train":
            return {"class": self.active, "task": "task", "domain": "all"}[self.scenario]
        return which

    def view(self, out: Tensor, batch: Batch, which: str) -> Tensor:
        """Logits, shape (n, outputs), with ``MASKED`` where an output does not count."""
        which = self._resolved(which)
        if which == "task":
            return self._of_rows(out, batch)
        key = (which, out.shape[1], out.device)
        if key not in self._masks:
            columns = self.columns(which)
            self._masks[key] = None if columns is None else _hidden(columns, out)
        hidden = self._masks[key]
        return out if hidden is None else out.masked_fill(hidden, MASKED)

    def _of_rows(self, out: Tensor, batch: Batch) -> Tensor:
        if self.scenario == "domain":
            return out
        key = ("task", out.shape[1], out.device)
        if key not in self._masks:
            self._masks[key] = self._table(out)
        table = self._masks[key]
        assert table is not None
        task = batch["task"].to(out.device).clamp(max=len(table) - 1)
        return out.masked_fill(table[task], MASKED)

    def _table(self, out: Tensor) -> Tensor:
        """For every task whether an output is hidden; the last line is for tasks that never came."""
        known = _by_task(self.came)
        table = torch.zeros(max(known, default=-1) + 2, out.shape[1], dtype=torch.bool)
        for task, classes in known.items():
            table[task] = _hidden(torch.tensor(sorted(classes)), out).cpu()
        return table.to(out.device)


def _classes(came: Sequence[dict[int, set[int]]]) -> set[int]:
    return {c for tasks in came for classes in tasks.values() for c in classes}


def _by_task(came: Sequence[dict[int, set[int]]]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for tasks in came:
        for task, classes in tasks.items():
            found.setdefault(task, set()).update(classes)
    return found


def _hidden(columns: Tensor, out: Tensor) -> Tensor:
    if len(columns) and int(columns.max()) >= out.shape[1]:
        raise BadInput(f"class {int(columns.max())} has no output: the model has {out.shape[1]}")
    hidden = torch.ones(out.shape[1], dtype=torch.bool)
    hidden[columns] = False
    return hidden.to(out.device)


class Incremental(Classification):
    """Classification whose loss and predictions use the outputs that count."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self._unmasked: Incremental | None = None

    def unmasked(self) -> Incremental:
        if self._unmasked is None:
            self._unmasked = Incremental(self.outputs.but("all"))
        return self._unmasked

    def forward(self, nets: Networks, net: str, batch: Batch) -> Tensor:
        module: Any = nets[net]
        if not getattr(getattr(module, "__self__", module), "takes_task", False):
            return super().forward(nets, net, batch)
        if "task" not in tuple(batch):
            raise BadInput("the network needs the task of every row; say which with task=")
        out: Tensor = module(batch["x"], batch["task"])
        return out

    def view(self, out: Tensor, batch: Batch, which: str) -> Tensor:
        return self.outputs.view(out, batch, which)

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(self.view(out, batch, "train"), batch["y"].long(), reduction="none")

    def relabel(self, out: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Random ones of the classes that were seen."""
        known = self.outputs.columns("seen")
        if known is None:
            return super().relabel(out, batch, generator)
        drawn = torch.randint(len(known), (len(batch),), generator=generator, device=out.device)
        return known.to(out.device)[drawn]
