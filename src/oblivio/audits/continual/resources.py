"""Resources: what a continual method costs over a whole stream, from counters and from the bytes that it holds.

Compute counts rows through forwards and backwards, so that replay, teachers and importance passes cost what they take;
counting epochs would hide them. Search for settings is a cost as well: ``trials`` says how many runs it took.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from oblivio.core.errors import BadInput
from oblivio.core.opt import Opt
from oblivio.core.part import Part
from oblivio.core.problem import Problem
from oblivio.core.source import Source
from oblivio.data.history import Trace

if TYPE_CHECKING:
    from oblivio.core.plan import Stage
    from oblivio.core.run import Run
    from oblivio.core.step import Step

BACKWARD = 2  # a backward takes about as much as two forwards
WORK = ("steps", "forward", "backward")
GROWS = 1.02  # carried bytes of the last turn beside those of the second, above which they are said to grow


class Costly(Protocol):
    """A learner as far as its cost is read."""

    parts: dict[str, Part]
    seconds: float

    @property
    def problem(self) -> Problem:
        """What it works on."""
        ...


@dataclass(frozen=True)
class Ledger:
    """What a method took.

    Attributes:
        turns: of every turn ``steps``, rows ``forward`` and ``backward``, ``seconds``, and bytes ``carried`` after it.
        peak: bytes during training at their peak, by kind: ``weights``, ``optimiser``, ``snapshots`` (teachers),
            ``importance`` (anchors, masks and all else that Parts keep), ``rows`` (stored samples and what is stored
            with them), ``cache`` (outputs of a teacher).
        carried: bytes kept from one task to the next beside the model itself, at the end, by kind.
        rows: how many samples are stored at the end.
        parameters, flops: of the model that is served, and for one row through it.
        base_parameters, base_flops: of the model as it was given.
        trials: runs that the search for its settings took.
    """

    turns: list[dict[str, float]]
    peak: Mapping[str, int]
    carried: Mapping[str, int]
    rows: int
    parameters: int
    flops: int
    base_parameters: int
    base_flops: int
    trials: int = 1

    def total(self, what: str) -> float:
        """``steps``, ``forward``, ``backward`` or ``seconds`` over all turns."""
        return math.fsum(turn[what] for turn in self.turns)

    @property
    def passes(self) -> float:
        """Sample-passes, a backward counted as two forwards."""
        return self.total("forward") + BACKWARD * self.total("backward")

    @property
    def compute(self) -> float:
        """Floating-point operations of training, those of one row through the final model times ``passes``."""
        return self.passes * self.flops

    @property
    def peak_bytes(self) -> int:
        """The sum of ``peak``."""
        return sum(self.peak.values())

    @property
    def stored_bytes(self) -> int:
        """What is carried between tasks, the model left out."""
        return sum(self.carried.values())

    @property
    def grows(self) -> bool:
        """Whether what is carried still grows with the number of tasks once the first two are over."""
        carried = [turn["carried"] for turn in self.turns]
        return len(carried) > 2 and carried[-1] > GROWS * carried[1]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Ledger:
        """The inverse of ``to_json``."""
        return cls(**facts)


def cumulative(naive: Ledger) -> float:
    """Sample-passes of joint retraining at every task: at task t as much as naive training took on tasks 1 to t."""
    each = [turn["forward"] + BACKWARD * turn["backward"] for turn in naive.turns]
    return math.fsum(math.fsum(each[: t + 1]) for t in range(len(each)))


def relative(of: Ledger, joint: Ledger, naive: Ledger) -> dict[str, float]:
    """Sample-passes and seconds beside those of joint training once, and passes beside retraining at every task."""
    if not joint.passes or not naive.passes:
        raise BadInput("the ledgers of joint and naive training are empty; run them with a meter")
    return {
        "joint": of.passes / joint.passes,
        "every_task": of.passes / cumulative(naive),
        "seconds": of.total("seconds") / max(joint.total("seconds"), 1e-9),
    }


def net_score(accuracy: float, of: Ledger, alpha: float = 2.0, beta: float = 0.5, gamma: float = 0.5) -> float:
    """NetScore 20 log10(a^alpha / (p^beta c^gamma)): a in percent, p in million parameters, c in GFLOP of training.

    The exponents are a choice; say them with the figure. -inf for an accuracy of 0.

    Raises:
        BadInput: an accuracy that is no share, or a model without parameters or compute.
    """
    size, work = of.parameters / 1e6, of.compute / 1e9
    if not 0 <= accuracy <= 1 or size <= 0 or work <= 0:
        raise BadInput(f"NetScore of accuracy {accuracy}, {of.parameters} parameters and {of.compute} FLOP: it needs a "
                       "share, and both above 0")  # fmt: skip
    if accuracy == 0:
        return -math.inf
    return 20 * (alpha * math.log10(100 * accuracy) - beta * math.log10(size) - gamma * math.log10(work))


def rows_within(budget: int, row: int, fixed: int = 0) -> int:
    """How many samples of ``row`` bytes fit beside ``fixed`` bytes: what makes methods equal in memory.

    Raises:
        BadInput: not one fits.
    """
    found = (budget - fixed) // row if row > 0 else 0
    if found < 1:
        raise BadInput(f"{budget} bytes hold no sample of {row} bytes beside {fixed} others; raise the budget")
    return found


# --- measuring


@dataclass
class Meter:
    """Reads the counters of a learner: make it before the first ``learn``, call ``close`` after each.

    ``learner.learn(experience, watch=[meter])`` also finds the peak of memory. A trace's time is taken out of the
    seconds; its passes are never counted.
    """

    learner: Costly
    trace: Trace | None = None
    turns: list[dict[str, float]] = field(default_factory=list)
    peak: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._base = parameters(self.learner.problem.model)
        self._work, self._seconds = dict(self.learner.problem.work), self._clock()
        self._flops: int | None = None

    def __call__(self, run: Run, stage: Stage, step: Step) -> None:
        """After a step of a run; memory changes seldom, so that it is looked at seldom."""
        if self._flops is None:
            self._flops = flops(run.problem)
        if run.steps & (run.steps - 1) == 0 or step.t + 1 == step.end:
            self._look(held(run.problem, run.parts))

    def _look(self, now: Mapping[str, int]) -> None:
        if sum(now.values()) > sum(self.peak.values()):
            self.peak = dict(now)

    def _clock(self) -> float:
        return self.learner.seconds - (0.0 if self.trace is None else self.trace.seconds)

    def close(self) -> None:
        """After a turn."""
        problem, work = self.learner.problem, dict(self.learner.problem.work)
        if self._flops is None and work:
            self._flops = flops(problem)  # of a turn that was taken up after its last step
        now = held(problem, self.learner.parts)
        self._look(now)
        spent = {what: float(work.get(what, 0) - self._work.get(what, 0)) for what in WORK}
        seconds = self._clock()
        carried = float(sum(carried_of(problem, self.learner.parts).values()))
        self.turns.append({**spent, "seconds": seconds - self._seconds, "carried": carried})
        self._work, self._seconds = work, seconds

    def go_on(self, before: Ledger) -> None:
        """Count on from a ledger of the same learner, which a new process has taken up again; its last turn is over."""
        self.turns, self.peak = [dict(turn) for turn in before.turns], dict(before.peak)
        self._base, self._flops = before.base_parameters, before.base_flops
        self._work = {what: int(before.total(what)) for what in WORK}
        self._seconds = self._clock()

    def ledger(self, trials: int = 1) -> Ledger:
        """What was read so far."""
        if not self.turns or self._flops is None:
            raise BadInput("the meter has seen no step; learn(experience, watch=[meter]), and close() after each")
        problem, parts = self.learner.problem, self.learner.parts
        rows = sum(len(part) for part in unique(parts) if isinstance(part, Source) and part.state)
        return Ledger(
            [dict(turn) for turn in self.turns], dict(self.peak), carried_of(problem, parts), rows,
            parameters(problem.model), flops(problem), self._base, self._flops, trials,
        )  # fmt: skip


def unique(parts: Mapping[str, Part]) -> list[Part]:
    """Every Part once."""
    return list({id(part): part for part in parts.values()}.values())


def held(problem: Problem, parts: Mapping[str, Part]) -> dict[str, int]:
    """Bytes of all that a method holds now, by kind, as ``Ledger.peak``."""
    found = {
        "weights": bytes_of([*problem.nets.parameters(), *problem.nets.buffers()]),
        "optimiser": bytes_of([part.save() for part in unique(parts) if isinstance(part, Opt)]),
        "snapshots": bytes_of(problem.snapshots),
        "cache": bytes_of(problem.frozen),
        **_memories(problem, parts),
    }
    return {kind: size for kind, size in found.items() if size}


def carried_of(problem: Problem, parts: Mapping[str, Part]) -> dict[str, int]:
    """Bytes that the next task is given beside the model, by kind.

    The snapshot ``start`` is left out, being the model itself again; so are the moments of an optimiser that does not
    carry them. Networks beside the model count as ``nets``.
    """
    others = [net for name, net in problem.nets.items() if name != "model"]
    found = {
        "nets": bytes_of([list(net.parameters()) + list(net.buffers()) for net in others]),
        "optimiser": bytes_of([part.save() for part in unique(parts) if isinstance(part, Opt) and part.carry]),
        "snapshots": bytes_of({name: kept for name, kept in problem.snapshots.items() if name != "start"}),
        **_memories(problem, parts),
    }
    return {kind: size for kind, size in found.items() if size}


def _memories(problem: Problem, parts: Mapping[str, Part]) -> dict[str, int]:
    keepers = [part for part in unique(parts) if not isinstance(part, Opt)]
    return {
        "rows": bytes_of([part.state for part in keepers if isinstance(part, Source)]) + bytes_of(problem.made),
        "importance": bytes_of([part.state for part in keepers if not isinstance(part, Source)])
        + bytes_of(problem.records),
    }


def bytes_of(value: Any) -> int:
    """Bytes of all tensors in nested state; one that occurs twice is counted once."""
    return sum({t.data_ptr() or id(t): t.numel() * t.element_size() for t in _tensors(value)}.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def parameters(model: nn.Module) -> int:
    """Numbers that are needed to answer: all weights of the model."""
    return sum(p.numel() for p in model.parameters())


def flops(problem: Problem) -> int:
    """Operations of one row through the model: twice the multiplications of its products, as PyTorch counts them."""
    batch = problem.source("new").batch(torch.arange(1))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), problem.evaluating(), counter:
        problem.task.forward(problem.nets, "model", batch)
    return int(counter.get_total_flops())
