"""TAME: when the loss jumps, another expert learns; a selector sends every row to the expert that knows it."""

from __future__ import annotations

from statistics import fmean, pstdev
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.plan import Plan, Stage
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.core.where import Selection, Where
from oblivio.modules.experts import Experts, activate_expert, add_expert, host_experts, hosted
from oblivio.modules.growing import GrownLinear
from oblivio.registry import method
from oblivio.sources.memory import Memory


class Switch(Where):
    """The active expert; before every step its loss on the new batch says whether another one is to become it.

    Kept of every expert: its last ``w`` losses, the running loss E and the running mean A over the batches on which it
    was active, and the threshold h at which it was left.
    """

    def __init__(self, on: str, w: int, rho: float, deviations: float, floor: float, stored: Stored) -> None:
        self.on, self.w, self.rho, self.deviations, self.floor, self.stored = on, w, rho, deviations, floor, stored

    def prepare(self, problem: Problem) -> None:
        if not isinstance(problem.model, Experts):
            problem.operate(host_experts, seed=mix(problem.seed, "experts"))
        if any(isinstance(module, GrownLinear) for module in experts_of(problem).experts.modules()):
            raise BadInput("tame: the head had to grow; build the model with an output for every class of the stream")

    def select(self, problem: Problem) -> Selection:
        return dict.fromkeys(problem.weights(f"model.experts.{experts_of(problem).active}.*"))

    def before(self, step: Step) -> None:
        experts = experts_of(step.problem)
        loss = self._loss(step, experts.active)
        now = self._known(experts.active, loss)
        now["E"] += self.rho * (loss - now["E"])
        if self._jumped(now):
            loss = self._switch(step, experts)
            now = self._known(experts.active, loss)
        now["A"] += self.rho * (loss - now["A"])
        now["losses"] = [*now["losses"], loss][-self.w :]

    def _loss(self, step: Step, expert: int) -> float:
        """Of an expert on the batch, before the update, in evaluation mode."""
        batch, problem = step.drawn(self.on), step.problem
        problem.spend("forward", len(batch))
        with torch.no_grad(), problem.evaluating():
            out = step.task.forward({"model": experts_of(problem).experts[expert]}, "model", batch)
            return float(step.task.each(out, batch).mean())

    def _known(self, expert: int, loss: float) -> dict[str, Any]:
        """What is kept of an expert; of one that is new, as its first loss gives it."""
        known: dict[str, Any] = self.state.setdefault(str(expert), {"losses": [], "E": loss, "A": loss, "h": 0.0})
        return known

    def _jumped(self, now: dict[str, Any]) -> bool:
        """Whether the running loss is above the threshold of a window that is full."""
        if len(now["losses"]) < self.w:
            return False
        now["h"] = fmean(now["losses"]) + self.deviations * max(pstdev(now["losses"]), self.floor)
        return bool(now["E"] > now["h"])

    def _switch(self, step: Step, experts: Experts) -> float:
        """Make the first expert active that still predicts well, or a new one; its loss on the batch."""
        for other in range(len(experts.experts)):
            if other == experts.active:
                continue
            loss, known = self._loss(step, other), self.state[str(other)]
            expected = known["A"] + self.rho * (loss - known["A"])
            if expected < known["h"]:
                step.problem.operate(activate_expert, expert=other)
                known["E"] = expected  # what it was when the expert was left would at once give the alarm again
                return loss
        step.problem.operate(add_expert, seed=step.rng("expert").initial_seed())
        return self._loss(step, experts.active)


class Stored(Memory):
    """Up to ``q`` rows of every class of every expert, with the column ``expert``: those of the highest priorities.

    A row's priority is drawn from the seed and its id, so that a row that comes again is not held twice.
    """

    def __init__(self, q: int, of: str, batch: int) -> None:
        super().__init__(q, "replay", batch)
        self.of = of

    @property
    def most(self) -> int:
        """``q`` for every class of every expert that it holds."""
        if not len(self):
            return 0
        groups = torch.stack([self.state["rows"][name] for name in ("expert", "y")])
        return self.capacity * groups.unique(dim=1).shape[1]

    def after(self, step: Step) -> None:
        drawn, expert = step.drawn(self.of), experts_of(step.problem).active
        plain = drawn.source.batch(drawn.rows)  # as it is read: a batch may have been augmented
        ids, held = np.asarray(plain["id"]), self.ids
        fresh = ~np.isin(ids, held[self._of(expert)]) if len(held) else np.ones(len(ids), dtype=bool)
        priority = [mix(step.problem.seed, "stored", name) for name in ids[fresh].tolist()]
        at = torch.from_numpy(np.flatnonzero(fresh)).to(plain["y"].device)
        coming = {
            "x": plain["x"][at],
            "y": plain["y"].long()[at],
            "expert": torch.full_like(plain["y"], expert, dtype=torch.long)[at],
            "priority": torch.tensor(priority, dtype=torch.long, device=plain["y"].device),
        }
        self._merge(ids[fresh], coming)

    def _of(self, expert: int) -> Any:
        return (self.state["rows"]["expert"][: len(self)] == expert).cpu().numpy()

    def _merge(self, ids: Any, coming: dict[str, Tensor]) -> None:
        """Of the rows that are held and those that come the first ``q`` of every group."""
        held = len(self)
        old = {n: v[:held] for n, v in self.state["rows"].items()} if held else {n: v[:0] for n, v in coming.items()}
        both = {n: torch.cat([old[n], v]) for n, v in coming.items() if n != "x"}
        chosen = _first_of_groups(both, self.capacity)
        if len(chosen) == held and int(chosen[-1]) < held:
            return
        rows = {**both, "x": torch.cat([old["x"], coming["x"]])}
        names = np.concatenate([self.ids, ids])[chosen.numpy()] if held else ids[chosen.numpy()]
        self.state["rows"] = {n: v[chosen.to(v.device)] for n, v in rows.items()}
        self.state["ids"] = torch.from_numpy(names) if names.dtype.kind in "iu" else [str(name) for name in names]
        self.state["filled"] = len(chosen)


def _first_of_groups(rows: dict[str, Tensor], q: int) -> Tensor:
    """The places, in order, of the ``q`` rows of highest priority of every expert and class."""
    expert, label, priority = (rows[n].cpu().numpy() for n in ("expert", "y", "priority"))
    order = np.lexsort((-priority, label, expert))
    group = np.stack([expert, label])[:, order]
    new = np.concatenate([[True], (group[:, 1:] != group[:, :-1]).any(0)])
    start = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    return torch.from_numpy(np.sort(order[np.arange(len(order)) - start < q]))


@term
def routed(step: Step, on: On) -> Tensor:
    """The selector's cross-entropy to the expert that learned each row."""
    batch = step.batch(on)
    step.problem.count(batch.source.name, len(batch))
    return F.cross_entropy(step.call(lambda nets: hosted(nets).selector(batch["x"])), batch["expert"], reduction="none")


def experts_of(problem: Problem) -> Experts:
    """The model, which ``Switch`` has wrapped."""
    return hosted(problem.nets)


@method(
    kind="continual",
    paper="Zhu et al., TAME: Task Agnostic Continual Learning using Multiple Experts, 2022",
    needs=("new",),
    tasks=("classification",),
    structure=True,
    aliases=("task_agnostic_experts",),
    cost="one more forward a step, of all experts where the loss jumps; a network an expert and one for the selector; "
    "q stored rows a class of an expert, on which the selector is trained after every experience",
)
def tame(
    w: Annotated[int, Field(gt=1)] = 100,
    rho: Annotated[float, Field(gt=0, le=1)] = 0.2,
    deviations: Annotated[float, Field(gt=0)] = 3.0,
    floor: Annotated[float, Field(gt=0)] = 0.005,
    q: Annotated[int, Field(gt=0)] = 50,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    wd: Annotated[float, Field(ge=0)] = 5e-4,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 16,
    selector_lr: Annotated[float, Field(gt=0)] = 0.05,
    selector_steps: Annotated[int, Field(gt=0)] = 500,
) -> Stage:
    """Train one expert; when its loss jumps, go back to one that still predicts well or begin a new one.

    Equation: before every step E <- rho l + (1 - rho) E with the loss l of the active expert, and if E > h = mean(W) +
    deviations max(std(W), floor), W its last w losses, the first other expert takes over with rho l_e + (1 - rho) A_e <
    h_e, A its running loss while active and h_e the threshold at which it was left; else a fresh one does. Stored rows
    (the q of highest random priority of every class of an expert) train the selector, and a row is answered by the
    expert that argmax S(x) names.
    Needs: new rows; no boundaries, and the column ``task`` is not read. The model needs an output for every class.
    Fails: tasks of fewer batches than w are not noticed, for a new expert is not judged before its window is full (the
    paper's begins full of log C, which a fresh network may exceed); tasks that do not contradict each other share an
    expert. The paper's pruning of experts is left out. What a deleted row did to thresholds and weights stays.
    """
    stored = Stored(q, "new", batch)
    switch = Switch("new", w, rho, deviations, floor, stored)
    opt = sgd(lr, momentum, wd, carry=True)
    learn = Descent(terms.fit("new"), switch, opt=opt, over="new", epochs=epochs, batch=batch)
    route = Descent(routed(stored), "model.selector.*", opt=sgd(selector_lr, 0.9, carry=True), steps=selector_steps)
    return Plan([learn, route])
