"""Probe: one measurement or attack, made on every model of a case alike. Figure: what it found."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from oblivio.audits.case import Case, Look

Question = Literal["gone", "intact", "alike", "cost"]
About = Literal["outputs", "features", ""]
State = Literal["figure", "does not apply", "failed"]

QUESTIONS: dict[Question, str] = {
    "gone": "Is it gone?", "intact": "Is the rest intact?", "alike": "Is it as if never learned?",
    "cost": "What did it cost?",
}  # fmt: skip
Z = 1.959963984540054  # of a 95% interval


class DoesNotApply(Exception):
    """Raised by a probe that means nothing on this request; its text is the reason."""


@dataclass(frozen=True)
class Value:
    """A figure of one model.

    Attributes:
        value: the figure.
        low, high: its 95% interval over the rows, where it has one; the spread over models is another matter.
        rows: how many rows it stands on.
        curve: for drawing: places (layers, steps) and the figure at each.
        note: what a reader must know of this value, such as which class it is of.
    """

    value: float
    low: float | None = None
    high: float | None = None
    rows: int | None = None
    curve: Sequence[tuple[Any, float]] = ()
    note: str = ""


Measure: TypeAlias = Callable[[Case, Look, Sequence[Look]], Value]


@dataclass(frozen=True)
class Probe:
    """A measurement.

    Attributes:
        id: its name in reports and policies.
        question: which of the four it helps to answer.
        says: what the figure is, in a few words for a table.
        unit: ``share`` (of rows, 0 to 1), ``auc``, ``nats``, ``p`` or ``error``.
        about: whether it looks at outputs or at features; a hidden output deceives the first kind only.
        needs: sources that the problem must have.
        of: kinds of models it is measured on.
        measure: ``measure(case, look, others)``, where ``others`` are the references, without the model itself.
    """

    id: str
    question: Question
    says: str
    unit: str
    measure: Measure
    about: About = ""
    needs: tuple[str, ...] = ("forget",)
    of: tuple[str, ...] = ("outcome", "original", "reference", "control")


@dataclass(frozen=True)
class Figure:
    """What a probe found: a value for each model, or the reason that there is none.

    Attributes:
        state: ``figure``, ``does not apply`` or ``failed``; then ``why`` says why.
        values: by the name of the model.
    """

    id: str
    question: Question
    says: str
    unit: str
    about: About
    state: State
    why: str = ""
    values: dict[str, Value] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a report holds it."""
        return asdict(self)


PROBES: dict[str, Probe] = {}


def probe(question: Question, says: str, unit: str, **facts: Any) -> Callable[[Measure], Measure]:
    """Register a function as the probe of its name; ``facts`` are further fields of Probe."""

    def mark(measure: Measure) -> Measure:
        PROBES[measure.__name__] = Probe(measure.__name__, question, says, unit, measure, **facts)
        return measure

    return mark


def known() -> dict[str, Probe]:
    """Every probe, in the order of the questions and within them of the files."""
    package = importlib.import_module("oblivio.audits.probes")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(PROBES.items(), key=lambda item: _place(item[1])))


def _place(made: Probe) -> tuple[int, str, int]:
    """By question, file and line: the same order whichever file was imported first."""
    code = inspect.unwrap(made.measure).__code__
    return list(QUESTIONS).index(made.question), made.measure.__module__, code.co_firstlineno


def figure(made: Probe, case: Case) -> Figure:
    """Make one measurement on every model. It never raises: what went wrong is in the figure."""
    facts = (made.id, made.question, made.says, made.unit, made.about)
    missing = [name for name in made.needs if name not in case.targets]
    if missing:
        return Figure(*facts, "does not apply", f"there are no {' or '.join(missing)} rows with targets")
    looks = [look for look in case.looks if look.subject.kind in made.of]
    try:
        values = {look.subject.name: finite(made.measure(case, look, case.others(look))) for look in looks}
    except DoesNotApply as reason:
        return Figure(*facts, "does not apply", str(reason))
    except Exception as error:  # a probe that breaks must show in the report, and must not hide the others
        return Figure(*facts, "failed", f"{type(error).__name__}: {error}")
    return Figure(*facts, "figure", "", values)


def finite(value: Value) -> Value:
    """The same; ValueError for NaN or infinity, which no band can hold."""
    if not math.isfinite(value.value):
        raise ValueError(f"the figure is {value.value}")
    return value


# --- intervals over rows


def share(hits: Tensor) -> Value:
    """The share of rows that hit, of 0s and 1s or shares in between, with Wilson's interval."""
    n = len(hits)
    if not n:
        raise DoesNotApply("there are no such rows")
    p = float(hits.double().mean())
    middle, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Value(p, (middle - spread) / (1 + Z**2 / n), (middle + spread) / (1 + Z**2 / n), n)


def average(values: Tensor) -> Value:
    """The mean over rows, with the normal interval."""
    n = len(values)
    if not n:
        raise DoesNotApply("there are no such rows")
    mean = float(values.double().mean())
    off = Z * float(values.double().std()) / math.sqrt(n) if n > 1 else None
    return Value(mean, None if off is None else mean - off, None if off is None else mean + off, n)


def of_task(case: Case, quality: Tensor) -> Value:
    """The mean of the task's figure: a share where it is an accuracy, else an average."""
    return share(quality) if case.problem.task.higher else average(quality)


def needs_features(look: Look, on: str) -> Tensor:
    """The features of the sampled rows of a source; DoesNotApply where the model has none."""
    found = look[on].features
    if found is None:
        raise DoesNotApply(
            f"{look.subject.name} has no linear layer to take features before; name one as model.features"
        )
    return found


def needs_references(others: Sequence[Look]) -> Sequence[Look]:
    """The same; DoesNotApply where there is no reference to compare with."""
    if not others:
        raise DoesNotApply("there is no other reference to compare with")
    return others


def mean_over(values: Sequence[Value]) -> Value:
    """The mean of several figures on the same rows, and the mean of their intervals."""
    every = [[getattr(v, name) for v in values] for name in ("value", "low", "high")]
    value, low, high = (None if None in each else float(torch.tensor(each).mean()) for each in every)
    assert value is not None
    return Value(value, low, high, values[0].rows)
