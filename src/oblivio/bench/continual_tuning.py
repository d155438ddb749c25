"""Tuning of continual methods: a search on the validation rows of a stream, fair to all methods.

Every method gets the same number of trials, the first at its defaults. What a trial may spend (epochs, rows a step,
rows stored) is not searched: it is the budget. What is maximised is the average accuracy on rows that no experience
trains on, on seeds that no table and no claim reports.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from oblivio.bench import continual_memory
from oblivio.bench.continual import Plan, Seed, check
from oblivio.bench.tuning import SEEDS, TRIALS, default, space
from oblivio.core.errors import BadInput, Stopped
from oblivio.data.extras import need
from oblivio.data.streams.experience import Stream
from oblivio.jobs.learning import refusal

if TYPE_CHECKING:
    from optuna import Trial

BUDGET = ("epochs", "batch", "replay")  # beside the number of stored rows
FAILURE = 0.0  # of a trial that diverged


@dataclass(frozen=True)
class Tuned:
    """What a search found: the best settings that were searched, their accuracy and that of the defaults."""

    method: str
    stream: str
    scenario: str
    settings: Mapping[str, Any]
    accuracy: float
    default: float
    trials: int
    seeds: Sequence[int]
    shared: Mapping[str, Any]
    tried: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As it is committed."""
        return asdict(self)


def tune(
    plan: Plan,
    *,
    trials: int = TRIALS,
    seeds: Sequence[int] = SEEDS,
    given: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Search the settings of the one method of a plan, in its one scenario.

    Args:
        plan: with what all methods share, and a share of validation rows among the options of the stream.
        trials: how many settings are tried, the defaults first.
        seeds: of class order and training; not those that are reported.
        given: ranges in place of the declared ones, as ``{"lr": "1e-4:1e-1"}``.
        tell: called with a line after each trial.

    Raises:
        BadInput: as ``compare``; a stream without validation rows, or whose tasks come more than once.
    """
    optuna = need("optuna", "tune")
    check(plan)
    (method,), (scenario,) = plan.names, plan.scenarios
    ranges = searched(plan, method, given or {})
    cases = [Seed(plan, scenario, number) for number in seeds]
    streams = [validated(case.stream) for case in cases]
    if why := refusal(method, streams[0]):
        raise BadInput(why)
    if streams[0].modality == "regression":
        raise BadInput(f"{plan.stream} is a regression; what is searched for is accuracy")
    tried: list[dict[str, Any]] = []

    def objective(trial: Trial) -> float:
        settings = {name: each.draw(name, trial) for name, each in ranges.items()}
        found = fmean(accuracy(case, stream, method, settings) for case, stream in zip(cases, streams, strict=True))
        tried.append({"settings": settings, "accuracy": found})
        tell(f"{method} {len(tried)} of {trials}: {found:.3f} {settings}")
        return found

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0), direction="maximize")
    study.enqueue_trial({name: default(method, name) for name in ranges})
    study.optimize(objective, n_trials=trials)
    best = max(tried, key=lambda each: each["accuracy"])
    return Tuned(
        method, plan.stream, scenario, best["settings"], best["accuracy"], tried[0]["accuracy"], trials, list(seeds),
        dict(plan.shared) | ({} if plan.rows is None else {"rows": plan.rows}), tried,
    )  # fmt: skip


def searched(plan: Plan, method: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The ranges of what is searched: the declared settings less the budget and what all methods share."""
    fixed = {*BUDGET, *plan.shared, continual_memory.setting(method, plan.of(method))}
    found = {name: each for name, each in space(method, given).items() if name in given or name not in fixed}
    if not found:
        raise BadInput(f"{method} has no setting to search; name one with --space, as lr=0.01:0.1")
    return found


def validated(stream: Stream) -> Stream:
    """The stream with the validation rows of each task in the place of its test rows."""
    if len({experience.task for experience in stream.train}) != len(stream.train) or any(e.of for e in stream.train):
        raise BadInput(f"{stream.name}: tasks come more than once or together; tuning needs one experience a task")
    test = []
    for experience in stream.train:
        if experience.valid is None:
            raise BadInput(f"{stream.name} has no validation rows; give --valid 0.1")
        test.append(dataclasses.replace(experience, rows=experience.valid, valid=None))
    return dataclasses.replace(stream, test=tuple(test))


def accuracy(case: Seed, stream: Stream, method: str, settings: Mapping[str, Any]) -> float:
    """The average accuracy at the end of a trial; that of a failure where it diverged."""
    course = dataclasses.replace(case.course(method, settings), stream=stream)
    try:
        return course.run()[1].figures["served"]["acc"]
    except Stopped:
        return FAILURE
