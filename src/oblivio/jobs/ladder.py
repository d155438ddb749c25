"""The ladder: methods from the cheapest to the dearest, each judged, until one is accepted; at its end is retraining.

Stopping at the first success selects on noise: of twenty methods that all fall short, one may look right beside three
references by luck. What is accepted is therefore judged again beside references that the ladder has not seen, and only
that second verdict counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field

from oblivio import methods
from oblivio.audits.verdict import LEAST
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.plan import Plan
from oblivio.core.problem import Problem
from oblivio.jobs import estimate, serving
from oblivio.jobs.method import Chosen, choose, peak
from oblivio.jobs.outcome import Outcome, cost
from oblivio.jobs.references import Reference
from oblivio.jobs.section import Section, parse
from oblivio.registry import Spec

AUTO = "auto"
LAST = "retrain"  # the rung that cannot fail
FRESH = LEAST  # references that confirm what was accepted


class Ladder(Section):
    """What ``method: auto`` may do.

    Attributes:
        budget: the most rows that all attempts together may forward, as a share of those that one retraining does.
        methods: the rungs; default: every registered method that the request allows.
    """

    budget: Annotated[float, Field(gt=0)] = 0.5
    methods: list[str] = Field(default=[])


@dataclass(frozen=True)
class Rung:
    """One method on the ladder: ``word`` is its verdict, or ``not allowed``, ``too dear``, ``stopped``.

    ``expected`` and ``cost`` are rows forwarded as shares of one retraining; ``attempt`` counts those that were run.
    """

    method: str
    word: str
    reason: str
    expected: float | None = None
    cost: float | None = None
    attempt: int | None = None


@dataclass
class Climb:
    """A climb in progress.

    Attributes:
        problem: the request, on the original.
        ladder: what may be done.
        retraining: rows that one retraining forwards.
        attempt: runs a method; returns its outcome beside the references that the ladder knows.
        confirm: the same outcome beside ``FRESH`` references that nobody has looked at; called with how often before.
        exact: the outcome of retraining without the rows.
    """

    problem: Problem
    ladder: Ladder
    retraining: float
    attempt: Callable[[Chosen], Outcome]
    confirm: Callable[[Outcome, int], Outcome]
    exact: Callable[[], Outcome]
    rungs: list[Rung] = field(default_factory=list)
    spent: float = 0.0
    confirmed: int = 0

    def go(self) -> Outcome:
        """The first outcome that is accepted and confirmed, else the exact one; its report shows every rung."""
        outcome = next(self._accepted(), None) or self._last()
        return outcome.climbed([asdict(rung) for rung in self.rungs])

    def _accepted(self) -> Iterator[Outcome]:
        for expected, spec in self._order():
            if self.spent + expected > self.ladder.budget:
                left = self.ladder.budget - self.spent
                self._note(spec.id, "too dear", f"{100 * left:.0f}% of a retraining are left of the budget", expected)
                continue
            outcome = self._tried(spec, expected)
            if outcome is not None and outcome.report.verdict.word == "ACCEPTED":
                again = self.confirm(outcome, self.confirmed)
                self.confirmed += 1
                word, reasons = again.report.verdict.word, again.report.verdict.reasons
                self._note(spec.id, word, f"beside {FRESH} references that the ladder had not seen: {reasons[0]}")
                if word == "ACCEPTED":
                    yield again

    def _order(self) -> list[tuple[float, Spec]]:
        """Methods that the request allows with what each is expected to cost, cheapest first."""
        allowed = []
        for name in self.ladder.methods or candidates():
            spec = methods.spec(name)
            try:
                serving.check(self.problem, spec)
                rows = estimate.expected(spec, choose(name, {}).plan, self.problem)
            except BadInput as error:
                self._note(name, "not allowed", str(error))
            else:
                allowed.append((rows / self.retraining, spec))
        return sorted(allowed, key=lambda each: (each[0], each[1].id))

    def _tried(self, spec: Spec, expected: float) -> Outcome | None:
        attempt = self._number()
        try:
            outcome = self.attempt(choose(spec.id, {}))
        except BadInput as error:  # what only the rows show, such as a column that is missing
            self._note(spec.id, "not allowed", str(error), expected)
            return None
        except Stopped as stop:
            self.spent += expected
            self._note(spec.id, "stopped", str(stop), expected, expected, attempt)
            return None
        cost = sum(outcome.cost["rows"].values()) / self.retraining
        self.spent += cost
        verdict = outcome.report.verdict
        self._note(spec.id, verdict.word, verdict.reasons[0], expected, cost, attempt)
        return outcome

    def _last(self) -> Outcome:
        outcome = self.exact()
        verdict = outcome.report.verdict
        self._note(LAST, verdict.word, verdict.reasons[0], 1.0, 1.0, self._number())
        return outcome

    def _number(self) -> int:
        """Of the next attempt."""
        return 1 + sum(rung.attempt is not None for rung in self.rungs)

    def _note(self, method: str, word: str, reason: str, expected: float | None = None, cost: float | None = None,
              attempt: int | None = None) -> None:  # fmt: skip
        self.rungs.append(Rung(method, word, reason, expected, cost, attempt))


def climb(
    problem: Problem,
    ladder: Ladder,
    known: Sequence[Reference],
    *,
    run: Callable[[Chosen], tuple[Problem, tuple[float, dict[str, int], int]]],
    fresh: Callable[[int], Sequence[Reference]],
    retrained: Callable[[], Reference],
    made: Callable[[Chosen, Problem, dict[str, Any]], Outcome],
) -> Outcome:
    """The first method that is accepted and confirmed, or retraining.

    Args:
        problem: the request, on the original.
        ladder: what may be done.
        known: the references that attempts are judged beside.
        run: a method; returns the changed problem with seconds, rows forwarded by source, and the most memory in use.
        fresh: ``FRESH`` further references; called with how many such there were before.
        retrained: one more model that never saw the rows.
        made: the outcome of a method, beside ``known``.
    """

    def attempt(chosen: Chosen) -> Outcome:
        changed, took = run(chosen)
        return made(chosen, changed, cost(*took, known))

    def confirm(outcome: Outcome, before: int) -> Outcome:
        return replace(outcome, references=fresh(before * FRESH))

    def exact() -> Outcome:
        reference, changed = retrained(), problem.copy()
        changed.nets["model"] = reference.module.to(problem.team.device)
        spent = cost(reference.seconds or 0.0, {"retain": reference.rows or 0}, peak(problem.team.device), known)
        return made(Chosen(Plan([]), LAST, {}, methods.spec(LAST)), changed, spent)

    rows = [each.rows for each in known if each.rows] or [len(problem.source("retain"))]
    return Climb(problem, ladder, fmean(rows), attempt, confirm, exact).go()


def candidates() -> list[str]:
    """The registered methods that forget, without retraining."""
    specs = map(methods.spec, methods.names)
    return [spec.id for spec in specs if spec.kind == "unlearning" and spec.id != LAST]


def check(settings: Mapping[str, Any], references: int) -> Ladder:
    """The ladder that these settings mean. Raises BadInput for unknown settings or methods, or too few references."""
    ladder = parse(Ladder, dict(settings), "method auto")
    for name in ladder.methods:
        if (spec := methods.spec(name)).kind != "unlearning":
            raise BadInput(f"method auto: {name} is of the kind {spec.kind}; one that forgets is needed")
    if references < LEAST:
        raise BadInput(f"method auto judges every attempt beside retrained models: give references: {LEAST} or more")
    return ladder
