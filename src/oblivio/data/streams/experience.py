"""What a continual learner meets: an Experience at a time, and the Stream of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, TypeAlias

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Source
from oblivio.data.dataset import Preprocess
from oblivio.sources.chained import Chained
from oblivio.sources.marked import Marked, distinct, joined

Scenario: TypeAlias = Literal["class", "task", "domain"]
SCENARIOS: tuple[Scenario, ...] = ("class", "task", "domain")


@dataclass(frozen=True, eq=False)
class Experience:
    """Rows that are learned, or tested, together.

    Attributes:
        rows: the columns ``x``, ``y`` and ``task`` (int64, the task that each row belongs to); ids name records, so a
            record that comes in two tasks has the same id in both.
        task: which task this is, from 0; a task that recurs comes back with its number. Of rows of several tasks (see
            ``of``): the one that most of them belong to; where classes recur, the number of their set.
        classes: the values of ``y`` that occur, in the order of the outputs; none for targets that are no classes.
        scenario: ``class``, ``task`` or ``domain``; see ``Stream``.
        valid: rows cut from the training rows, on which a method may be tuned; None where none were asked for.
        name: for people.
        of: where it holds several tasks, the classes of each.
    """

    rows: Source
    task: int
    classes: tuple[int, ...]
    scenario: Scenario
    valid: Source | None = None
    name: str = ""
    of: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def heads(self) -> Mapping[int, tuple[int, ...]]:
        """The classes of each of its tasks."""
        return self.of or {self.task: self.classes}

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        valid = "" if self.valid is None else f", valid {len(self.valid)}"
        return f"Experience({self.name!r}, {len(self)} rows, task {self.task}, classes {_listed(self.classes)}{valid})"


@dataclass(frozen=True, eq=False)
class Stream:
    """Experiences in order, and what the model is tested on.

    The scenario says what ``y`` is and whether the task of a test row is known:

    - ``class``: one output a class, the task unknown: the answer is among all classes met so far.
    - ``task``: one output a class, and the task of every row says which of them count.
    - ``domain``: the tasks share their outputs, ``y`` is the label within the task, the task unknown.

    Attributes:
        name: for people and records.
        scenario: ``class``, ``task`` or ``domain``.
        train: the experiences to learn from.
        test: the test rows of each task, in the order of the tasks; of a stream of recurring classes those of each
            class.
        inputs: shape of one row of ``x``.
        outputs: of a head that serves all tasks.
        modality: what the rows are for, as ``Dataset.task``.
        boundaries: whether a method may be told where tasks change.
        labels: what the outputs stand for, where that is known.
        preprocess: what is fitted to training rows in front of a network, as ``Dataset.preprocess``.
        recipe: what the stream was made from, as JSON can hold it.

    Example:
        >>> from oblivio import data
        >>> stream = data.split("digits", tasks=5)
        >>> stream.train[1].classes, len(stream.test), stream.outputs
        ((2, 3), 5, 10)
    """

    name: str
    scenario: Scenario
    train: tuple[Experience, ...]
    test: tuple[Experience, ...]
    inputs: tuple[int, ...]
    outputs: int
    modality: str = "classification"
    boundaries: bool = True
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess = None
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.train or not self.test:
            raise BadInput(f"stream {self.name!r} has no experience to {'test on' if self.train else 'learn from'}")
        for experience in (*self.train, *self.test):
            if not len(experience):
                raise BadInput(f"stream {self.name!r}: the experience {experience.name!r} has no rows")

    def __len__(self) -> int:
        return len(self.train)

    def __repr__(self) -> str:
        rows = sum(map(len, self.train))
        return (
            f"Stream({self.name!r}, {self.scenario}-incremental, {len(self.train)} experiences of {self.tasks} tasks, "
            f"{rows:,} rows, {self.outputs} outputs{'' if self.boundaries else ', no boundaries'})"
        )

    @property
    def tasks(self) -> int:
        """How many different tasks are learned."""
        return len({experience.task for experience in self.train})

    @cached_property
    def joint(self) -> Experience:
        """All training rows as one experience: what a model that may see everything at once is trained on.

        A row that comes again unchanged is in it once.
        """
        valid = [e.valid for e in self.train if e.valid is not None]
        return Experience(
            _all([experience.rows for experience in self.train]), 0,
            tuple(sorted({c for e in self.train for c in e.classes})), self.scenario,
            _all(valid) if valid else None, "joint", _heads(self.train),
        )  # fmt: skip

    @cached_property
    def held(self) -> Source:
        """All test rows in the order of ``test``: one pass over them measures every task; see ``slices``."""
        return chained([experience.rows for experience in self.test])

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where the rows of each of ``test`` lie in ``held``."""
        ends = list(accumulate(map(len, self.test)))
        return tuple(slice(end - len(experience), end) for end, experience in zip(ends, self.test, strict=True))

    def describe(self) -> dict[str, Any]:
        """All but the rows, as JSON can hold it."""
        facts = {n: getattr(self, n) for n in ("name", "scenario", "outputs", "modality", "boundaries")}
        return {
            **facts,
            "inputs": list(self.inputs),
            "labels": None if self.labels is None else list(self.labels),
            "preprocess": asdict(self.preprocess) if is_dataclass(self.preprocess) else self.preprocess,
            "recipe": dict(self.recipe),
            "train": [_described(experience) for experience in self.train],
            "test": [_described(experience) for experience in self.test],
        }


def chained(sources: Sequence[Source]) -> Source:
    """Sources one after another; views of the same rows become one view, which reads a batch at once."""
    views = [source for source in sources if isinstance(source, Marked)]
    if len(views) == len(sources) and all(views[0].joins(view) for view in views):
        return joined(views)
    return Chained(sources)


def known_scenario(scenario: str) -> Scenario:
    """``scenario`` where it is one of ``SCENARIOS``; else BadInput with the nearest."""
    for known in SCENARIOS:
        if scenario == known:
            return known
    raise BadInput(f"no scenario is called {scenario!r}{nearest(scenario, SCENARIOS)}")


def _all(sources: Sequence[Source]) -> Source:
    """Their rows, each once where that can be told."""
    whole = chained(list({id(source): source for source in sources}.values()))
    return distinct(whole) if isinstance(whole, Marked) else whole


def _heads(experiences: Sequence[Experience]) -> dict[int, tuple[int, ...]]:
    """The classes of each task of all of them."""
    heads: dict[int, set[int]] = {}
    for experience in experiences:
        for task, classes in experience.heads.items():
            heads.setdefault(task, set()).update(classes)
    return {task: tuple(sorted(classes)) for task, classes in heads.items()}


def _described(experience: Experience) -> dict[str, Any]:
    return {
        "name": experience.name,
        "task": experience.task,
        "classes": list(experience.classes),
        "rows": len(experience),
        "valid": 0 if experience.valid is None else len(experience.valid),
    }


def _listed(classes: Sequence[int]) -> str:
    """Classes, a run of them by its ends."""
    if len(classes) > 3 and list(classes) == list(range(classes[0], classes[-1] + 1)):
        return f"{classes[0]} to {classes[-1]}"
    return ", ".join(map(str, classes)) or "none"
