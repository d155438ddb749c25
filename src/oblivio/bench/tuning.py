"""Tuning: a search for the settings of a method on a standard problem, on validation rows, fair to all methods.

Every method gets the same number of trials; the first is at its defaults. What is searched are the settings that the
method declares; what is minimised is the distance that ``bench.comparison`` ranks by, with validation rows in the place
of test rows, on seeds that no table and no claim reports.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, get_args, get_origin

from oblivio import methods, problems
from oblivio.audits.audit import audit
from oblivio.bench.comparison import distance, outline
from oblivio.core.errors import BadInput, Stopped, nearest
from oblivio.core.known import Known
from oblivio.core.problem import Problem
from oblivio.data.extras import need
from oblivio.jobs import serving
from oblivio.jobs.estimate import forwards
from oblivio.jobs.method import apply, choose
from oblivio.problems.case import Case

if TYPE_CHECKING:
    from optuna import Trial

SEEDS = (100, 101)  # of no table and no claim
TRIALS = 20
SLOW = ("relearning",)  # probes that train
FIXED = ("batch",)  # settings that are not searched
MOST = 1.0  # of one retraining that a trial may take
FAILURE = 100.0  # a distance that no useful setting has
WIDE = 10.0  # a number is searched from its default over this to its default times it


@dataclass(frozen=True)
class Range:
    """A setting that is searched: from ``low`` to ``high`` on a logarithmic scale, or one of ``words``."""

    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    words: Sequence[Any] = ()

    def draw(self, name: str, trial: Trial) -> Any:
        """A value of a trial."""
        if self.words:
            return trial.suggest_categorical(name, list(self.words))
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.low > 0)
        return trial.suggest_float(name, self.low, self.high, log=self.low > 0)


@dataclass(frozen=True)
class Tuned:
    """What a search found: the best settings that were searched, their distance and that of the defaults."""

    method: str
    problems: Sequence[str]
    settings: Mapping[str, Any]
    distance: float
    default: float
    trials: int
    seeds: Sequence[int]
    tried: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As it is committed."""
        return asdict(self)


def tune(
    method: str,
    on: Sequence[str],
    *,
    trials: int = TRIALS,
    seeds: Sequence[int] = SEEDS,
    references: int = 3,
    given: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Search the settings of a method.

    Args:
        method: its name.
        on: standard problems; the distance is the mean over those that the method serves.
        trials: how many settings are tried, the defaults first.
        seeds: of the problems; not those that are reported.
        references: retrained models of each.
        given: ranges in place of the declared ones, as ``{"lr": "1e-4:1e-1", "variant": "a|b"}``.
        tell: called with a line after each trial.

    Raises:
        BadInput: an unknown method, problem or setting, or no problem that the method serves.
    """
    optuna = need("optuna", "tune")
    ranges = space(method, given or {})
    suiting = [name for name in on if serving.refusal(outline(name).start, methods.spec(method)) is None]
    if not suiting:
        raise BadInput(f"{method} serves none of the problems {', '.join(on)}")
    cases = [_loaded(method, name, seed, references) for name in suiting for seed in seeds]
    tried: list[dict[str, Any]] = []

    def objective(trial: Trial) -> float:
        settings = {name: each.draw(name, trial) for name, each in ranges.items()}
        found = fmean(_off(method, settings, case) for case in cases)
        tried.append({"settings": settings, "distance": found})
        tell(f"{method} {len(tried)} of {trials}: {found:.3f} {settings}")
        return found

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.enqueue_trial({name: default(method, name) for name in ranges})
    study.optimize(objective, n_trials=trials)
    best = min(tried, key=lambda each: each["distance"])
    return Tuned(method, suiting, best["settings"], best["distance"],
                 tried[0]["distance"], trials, list(seeds), tried)  # fmt: skip


def space(method: str, given: Mapping[str, str]) -> dict[str, Range]:
    """What is searched: the declared settings, with ranges in place of some. BadInput for a name that is none."""
    spec = methods.spec(method)
    known = {name: Range(*pair) for name, pair in _declared(method).items()}
    for name in given:
        if name not in spec.settings:
            raise BadInput(f"--space: {method} has no setting {name!r}{nearest(name, spec.settings)}")
    return known | {name: _read(name, words, method) for name, words in given.items()}


def _declared(method: str) -> dict[str, tuple[Any, ...]]:
    """Ranges about the defaults, inside of what the annotations allow."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, parameter in inspect.signature(methods.registry.get(method), eval_str=True).parameters.items():
        if name in FIXED:
            continue
        kind, limits, default = _unfolded(parameter.annotation), _limits(parameter.annotation), parameter.default
        if get_origin(kind) is not None and all(isinstance(word, str) for word in get_args(kind)):
            found[name] = (0.0, 0.0, False, get_args(kind))
        elif kind is bool:
            found[name] = (0.0, 0.0, False, (False, True))
        elif kind in (int, float) and default:
            wide = WIDE if kind is float and name != "epochs" else 3.0
            low, high = max(default / wide, limits[0]), min(default * wide, limits[1])
            found[name] = (low, high) if kind is float else (max(1, round(low)), max(1, round(high)), True)
    return found


def _unfolded(annotation: Any) -> Any:
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _limits(annotation: Any) -> tuple[float, float]:
    """The least and the most that the annotation allows."""
    low, high = -math.inf, math.inf
    for info in getattr(annotation, "__metadata__", ()):
        for rule in getattr(info, "metadata", ()):
            low = max(low, getattr(rule, "ge", getattr(rule, "gt", -math.inf)))
            high = min(high, getattr(rule, "le", getattr(rule, "lt", math.inf)))
    return low, high


def _read(name: str, words: str, method: str) -> Range:
    """``1e-4:1e-1`` or ``a|b``."""
    if ":" not in words:
        return Range(words=words.split("|"))
    try:
        low, high = (float(end) for end in words.split(":"))
    except ValueError:
        raise BadInput(f"--space: {name} = {words!r}; give LOW:HIGH, or words with | between them") from None
    if not low <= high:
        raise BadInput(f"--space: {name} = {words!r}; LOW is above HIGH")
    return Range(low, high, isinstance(default(method, name), int))


def default(method: str, name: str) -> Any:
    """What a setting is if nothing is said."""
    return methods.spec(method).settings[name].default


# --- one trial


def _loaded(method: str, name: str, seed: int, references: int) -> Case:
    from oblivio import records

    wanted = [need for need in methods.spec(method).needs if need in records.names()]
    case = problems.load(name, seed, references, records=wanted)
    case.start.known = Known()
    return case


def _off(method: str, settings: Mapping[str, Any], case: Case) -> float:
    """The distance on validation rows; that of a failure where a trial would be dearer than retraining, or stopped."""
    plan = choose(method, settings).plan
    if forwards(plan, case.start) > MOST * case.retraining:
        return FAILURE
    try:
        changed, _ = apply(plan, case.start)
    except Stopped:
        return FAILURE
    report = audit(_validated(case.start), case.subjects(outcome=changed), case.classes, leave_out=SLOW)
    return min(distance(report.verdict, report), FAILURE)


def _validated(start: Problem) -> Problem:
    """The problem with its validation rows in the place of its test rows."""
    made = start.copy()
    made.sources = {**made.sources, "test": start.source("valid")}
    return made
