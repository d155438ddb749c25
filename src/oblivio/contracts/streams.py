"""What every continual method must hold to, over a little stream in each scenario."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oblivio import methods
from oblivio.contracts.case import Bits, Planted, bits, differing, names, shortened
from oblivio.contracts.problems import TABLE
from oblivio.core.plan import Stage
from oblivio.core.run import Run, pack
from oblivio.core.source import Source
from oblivio.data.streams.experience import Experience
from oblivio.learners.learner import Learner
from oblivio.modules.masked import MASKED
from oblivio.networks import build
from oblivio.sources import Tensors
from oblivio.sources.memory import Memory

ROWS, TASKS = 24, 3  # rows of an experience, experiences
NETS = {"class": "digits", "task": "digits", "domain": "images"}  # the last has batch-norm statistics and dropout
STREAM_PROPERTIES: dict[str, Callable[[StreamCase], Iterator[str]]] = {}


def prop(fn: Callable[[StreamCase], Iterator[str]]) -> Callable[[StreamCase], Iterator[str]]:
    """Enter a property in the list; it yields a message for everything that is wrong."""
    STREAM_PROPERTIES[fn.__name__] = fn
    return fn


@dataclass(frozen=True, eq=False)
class StreamCase:
    """A way to make a plan, in one scenario."""

    make: Callable[..., Stage]
    scenario: str

    @property
    def net(self) -> str:
        """The tiny problem whose network is used."""
        spec = getattr(self.make, "spec", None)
        if spec is not None and (spec.images or spec.structure):
            return "images" if spec.images else "digits"
        return NETS[self.scenario]

    @cached_property
    def stream(self) -> tuple[Experience, ...]:
        """Two classes an experience."""
        return _stream(self.scenario, self.net)

    def learner(self, upto: int = 0, folder: Path | None = None, **settings: Any) -> Learner:
        """A learner after so many experiences."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build("mlp", (64,), 10, hidden=(16, 12)) if self.net == "digits" else TABLE[self.net].build()
        plan = shortened(self.make(**settings))
        return self.learn(Learner(model, plan, "classification", folder=folder), upto)

    def learn(self, learner: Learner, upto: int, watch: Sequence[Any] = ()) -> Learner:
        """Go on with the stream up to this experience."""
        for experience in self.stream[learner.turn : upto]:
            learner.learn(experience, watch=watch)
        return learner

    @cached_property
    def finished(self) -> Learner:
        """At the end of the stream; not to be changed."""
        return self.learner(TASKS)

    @property
    def tests(self) -> Source:
        """Rows of all experiences that were learned, with their tasks."""
        return Tensors(_columns(self.scenario, self.net))


@cache
def _columns(scenario: str, net: str) -> dict[str, Tensor]:
    x, y = TABLE[net].data()
    at = torch.cat([(y // 2 == task).nonzero().flatten()[:ROWS] for task in range(TASKS)])
    labels = y[at] % 2 if scenario == "domain" else y[at]
    return {"x": x[at], "y": labels, "task": y[at] // 2}


@cache
def _stream(scenario: str, net: str) -> tuple[Experience, ...]:
    root = Tensors(_columns(scenario, net), ids=1000 + torch.arange(TASKS * ROWS))
    parts = torch.arange(TASKS * ROWS).chunk(TASKS)
    classes = [(0, 1) if scenario == "domain" else (2 * task, 2 * task + 1) for task in range(TASKS)]
    return tuple(Experience(root.take(part), t, classes[t], scenario) for t, part in enumerate(parts))  # type: ignore[arg-type]


def check_stream(method: str | Callable[..., Stage], scenario: str, only: str = "") -> list[str]:
    """The properties that a continual method does not have in a scenario; an empty list is what you want.

    Args:
        method: its id, or what makes a plan.
        scenario: ``class``, ``task`` or ``domain``.
        only: names of the properties to look at; default: all of ``STREAM_PROPERTIES``.
    """
    make = methods.registry.get(method) if isinstance(method, str) else method
    case, wanted = StreamCase(make, scenario), only.split() or list(STREAM_PROPERTIES)
    found = []
    for name in wanted:
        try:
            found += [f"{name} fails in {scenario}: {message}" for message in STREAM_PROPERTIES[name](case)]
        except Exception as error:  # a method that breaks is the finding, and the others are still to be looked at
            found.append(f"{name} fails in {scenario}: {type(error).__name__}: {error}")
    return found


def memories(learner: Learner) -> list[Memory]:
    """The memories of its plan."""
    return [part for part in learner.parts.values() if isinstance(part, Memory)]


def everything(learner: Learner) -> Bits:
    """All weights and all that the Parts hold, by name."""
    tensors: dict[str, Tensor] = {}
    words = pack({path: part.save() for path, part in learner.parts.items()}, "parts", tensors)
    numbers = torch.tensor(list(repr(words).encode()), dtype=torch.uint8)
    return {**bits(learner.problem), **{n: t.clone() for n, t in tensors.items()}, "other state": numbers}


# --- properties


@prop
def goes_on(case: StreamCase) -> Iterator[str]:
    """Killed inside an experience and resumed, it ends as one that was not: weights, memories, statistics, moments."""
    expected = everything(case.finished)
    steps = [case.learner(n).steps for n in (1, TASKS)]
    for at in {steps[0] + 2, steps[1] - 1}:
        with tempfile.TemporaryDirectory() as name:
            with suppress(Planted):
                case.learn(case.learner(folder=Path(name)), TASKS, [_kill(at)])
            after = everything(case.learn(case.learner(folder=Path(name)), TASKS))
            yield from (f"resumed after step {at}: another {what}" for what in names(differing(expected, after)))


def _kill(at: int) -> Callable[..., None]:
    seen = iter(range(1, 1 << 30))

    def watch(run: Run, stage: Stage, step: Any) -> None:
        if next(seen) == at:
            if run.folder is not None:
                run.checkpoint()
            raise Planted

    return watch


@prop
def unhurt(case: StreamCase) -> Iterator[str]:
    """An experience that breaks off leaves the learner as it was."""
    learner = case.learner(1)
    before = everything(learner)
    with suppress(Planted):
        case.learn(learner, 2, [_kill(2)])
        yield "an error in a step was swallowed"
    yield from (f"a broken experience changed {what}" for what in names(differing(before, everything(learner))))


@prop
def reproducible(case: StreamCase) -> Iterator[str]:
    """The same seed gives the same bits whatever others draw."""
    state = torch.get_rng_state()
    torch.manual_seed(1)
    again = everything(case.learner(TASKS))
    torch.set_rng_state(state)
    yield from (f"another {what}" for what in names(differing(everything(case.finished), again)))


@prop
def by_itself(case: StreamCase) -> Iterator[str]:
    """What is predicted of a row depends on that row alone: not on its neighbours, nor on their order."""
    rows = case.tests.batch(torch.randperm(TASKS * ROWS, generator=torch.Generator().manual_seed(0)))
    task = rows["task"] if case.scenario == "task" else None
    out = case.finished.predict(rows["x"], task=task)
    order = torch.arange(len(rows)).flip(0)[:20]
    shuffled = case.finished.predict(rows["x"][order], task=None if task is None else task[order])
    if not torch.allclose(shuffled, out[order], atol=1e-5):
        yield "in another order rows get other answers"
    for i in range(6):
        alone = case.finished.predict(rows["x"][i : i + 1], task=None if task is None else task[i : i + 1])
        if not torch.allclose(alone[0], out[i], atol=1e-5):
            yield "alone a row gets another answer than among others"
            return


@prop
def counted(case: StreamCase) -> Iterator[str]:
    """Only outputs that count are in play: classes seen so far, or those of the row's own task."""
    learner, rows = case.learner(2), case.tests.batch(torch.arange(TASKS * ROWS))
    if case.scenario == "domain":
        return
    out = learner.predict(rows["x"], task=rows["task"] if case.scenario == "task" else None)
    for task in range(2):
        played = (out[rows["task"] == task] > MASKED / 2).any(0).nonzero().flatten().tolist()
        expected = [2 * task, 2 * task + 1] if case.scenario == "task" else [0, 1, 2, 3]
        if not set(played) <= set(expected):
            yield f"rows of task {task} are answered among {played}, and {expected} count"


@prop
def holds(case: StreamCase) -> Iterator[str]:
    """A memory never exceeds its size, and holds rows as they were learned, under their ids."""
    known = {i: x for e in case.stream for i, x in zip(e.rows.ids.tolist(), e.rows.batch(torch.arange(ROWS))["x"],
                                                       strict=True)}  # fmt: skip
    wrong: list[str] = []

    def look(run: Run, stage: Stage, step: Any) -> None:
        held = [part for part in run.parts.values() if isinstance(part, Memory)]
        wrong.extend(f"{part!r} holds {len(part)} rows" for part in held if len(part) > part.most)

    learner = case.learn(case.learner(), TASKS, [look])
    yield from wrong[:1]
    for memory in memories(learner):
        if "x" not in memory.columns:
            continue
        rows = memory.batch(torch.arange(len(memory)))
        if not all(torch.equal(x, known[i]) for i, x in zip(memory.ids.tolist(), rows["x"], strict=True)):
            yield f"{memory!r} holds rows that are not those of their ids"


@prop
def as_long(case: StreamCase) -> Iterator[str]:
    """Where an epoch passes over the new rows, their number fixes its length, whatever the size of the memory."""
    if "buffer" not in inspect.signature(case.make).parameters:
        return
    steps = {size: _over_new(case, size) for size in (8, 40)}
    if len(set(steps.values())) > 1:
        yield f"steps over the new rows by the size of the memory: {steps}"


def _over_new(case: StreamCase, size: int) -> int:
    seen: list[str] = []

    def look(run: Run, stage: Stage, step: Any) -> None:
        if getattr(stage, "over", None) == "new":
            seen.append(stage.place)

    case.learn(case.learner(buffer=size), 2, [look])
    return len(seen)


@prop
def still(case: StreamCase) -> Iterator[str]:
    """What is worked out when an experience ends moves no batch-norm statistics."""
    last: list[Bits] = []
    learner = case.learner(1)
    statistics = lambda nets: {n: b.clone() for n, b in nets.named_buffers() if "running" in n}  # noqa: E731
    case.learn(learner, 2, [lambda run, stage, step: last.append(statistics(run.problem.nets))])
    if last:
        moved = differing(last[-1], statistics(learner.problem.nets))
        yield from (f"{what} moved after the last step" for what in names(moved))


@prop
def forgets(case: StreamCase) -> Iterator[str]:
    """After a request the rows are in no memory, no state and no file, and learning goes on."""
    with tempfile.TemporaryDirectory() as name:
        learner = case.learner(2, Path(name))
        held = [i for memory in memories(learner) for i in memory.ids.tolist()]
        gone = list(dict.fromkeys(held))[:2] or case.stream[0].rows.ids[:2].tolist()
        x = {i: row for e in case.stream for i, row in zip(e.rows.ids.tolist(), e.rows.batch(torch.arange(ROWS))["x"],
                                                           strict=True)}  # fmt: skip
        receipt = learner.forget(gone)
        if held and not any("removed" in place.done for place in receipt.places):
            yield f"the receipt does not say that rows were removed: {receipt}"
        for i in gone:
            yield from (f"row {i} is still in {where}" for where in _found(learner, x[i]))
            needle = x[i].numpy().tobytes()
            yield from (
                f"row {i} is in a file" for f in Path(name).rglob("*") if f.is_file() and needle in f.read_bytes()
            )
        case.learn(learner, TASKS)
        if set(gone) & {i for memory in memories(learner) for i in memory.ids.tolist()}:
            yield "a forgotten row came back"


def _found(learner: Learner, x: Tensor) -> Iterator[str]:
    """Where a tensor of the state has this row."""
    for name, value in everything(learner).items():
        if value.dim() > x.dim() and value.shape[-x.dim() :] == x.shape and value.dtype == x.dtype:
            flat = value.reshape(-1, *x.shape)
            if bool((flat == x).flatten(1).all(1).any()):
                yield name
