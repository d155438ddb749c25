"""The ladder: methods from the cheapest to the dearest, each judged, until one is accepted; at its end is retraining.

Stopping at the first success selects on noise: of twenty methods that all fall short, one may look right beside three
references by luck. What is accepted is therefore judged again beside references that the ladder has not seen, and only
that second verdict counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from oblivio import methods
from oblivio.audits.verdict import LEAST
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.problem import Problem
from oblivio.jobs import estimate, serving
from oblivio.jobs.method import Chosen, choose
from oblivio.jobs.section import Section, parse
from oblivio.registry import Spec

if TYPE_CHECKING:
    from oblivio.jobs.outcome import Outcome

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
        attempt = 1 + sum(rung.attempt is not None for rung in self.rungs)
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
        attempt = 1 + sum(rung.attempt is not None for rung in self.rungs)
        self._note(LAST, verdict.word, verdict.reasons[0], 1.0, 1.0, attempt)
        return outcome

    def _note(self, method: str, word: str, reason: str, expected: float | None = None, cost: float | None = None,
              attempt: int | None = None) -> None:  # fmt: skip
        self.rungs.append(Rung(method, word, reason, expected, cost, attempt))


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
