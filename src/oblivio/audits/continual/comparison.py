"""Comparison: outcomes of methods on streams, seed by seed, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from oblivio.audits.continual.resources import Ledger, net_score, relative
from oblivio.core.errors import BadInput, nearest
from oblivio.data.history import History, Mean, interval, paired

JOINT, NAIVE = "joint", "naive"
ABOVE = 0.02  # how far above joint training a method may lie before joint is no upper line
VERSION = 1


@dataclass(frozen=True, eq=False)
class Outcome:
    """One method on one stream with one seed.

    Attributes:
        method: its name; ``joint`` and ``naive`` are the upper and the lower line.
        scenario: ``class``, ``task`` or ``domain``.
        seed: of the order of the tasks and of training; outcomes of equal seed are compared in pairs.
        history: what was measured.
        ledger: what it cost; None where no meter ran.
        budget: bytes that it was allowed to carry between tasks; outcomes of equal budget stand in one table.
        probes: plasticity probes after each turn, by name.
        settings: of the method.
    """

    method: str
    scenario: str
    seed: int
    history: History
    ledger: Ledger | None = None
    budget: int | None = None
    probes: Sequence[Mapping[str, float]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def figures(self) -> dict[str, dict[str, float]]:
        """Those of the history, by view: worked out once, for tables ask often."""
        return {view: self.history.metrics(view) for view in self.history.views}

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        facts = {n: getattr(self, n) for n in ("method", "scenario", "seed", "budget")}
        return {
            **facts, "history": self.history.to_json(), "probes": [dict(each) for each in self.probes],
            "ledger": None if self.ledger is None else self.ledger.to_json(), "settings": dict(self.settings),
        }  # fmt: skip

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Outcome:
        """The inverse of ``to_json``."""
        ledger = None if facts["ledger"] is None else Ledger.from_json(facts["ledger"])
        return cls(**{**facts, "history": History.from_json(facts["history"]), "ledger": ledger})


@dataclass(frozen=True, eq=False)
class Comparison:
    """Outcomes of several methods; every scenario has those of joint and naive training.

    Attributes:
        name: what is compared, for people.
        outcomes: in the order in which methods are shown.
        facts: what else there is to know: data, network, settings that all share, machine; shown as they are.

    Raises:
        BadInput: a scenario without joint or naive training, or two outcomes of the same method, seed and budget.
    """

    name: str
    outcomes: Sequence[Outcome]
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for scenario in self.scenarios:
            for line in (JOINT, NAIVE):
                if line not in self.methods(scenario):
                    raise BadInput(f"scenario {scenario!r} has no outcome of {line!r}; every comparison needs joint "
                                   "training as its upper and naive training as its lower line")  # fmt: skip
        keys = [(o.method, o.scenario, o.seed, o.budget) for o in self.outcomes]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise BadInput(f"two outcomes of method, scenario, seed and budget {twice[0]}")
        if not keys:
            raise BadInput("a comparison needs outcomes")

    @property
    def scenarios(self) -> list[str]:
        """In the order in which they come."""
        return list(dict.fromkeys(o.scenario for o in self.outcomes))

    def methods(self, scenario: str, budget: int | None = None) -> list[str]:
        """Names of the methods of a scenario, those of one memory budget where ``budget`` is given."""
        found = [o for o in self.outcomes if o.scenario == scenario and budget in (None, o.budget)]
        return list(dict.fromkeys(o.method for o in found))

    def budgets(self, scenario: str) -> list[int]:
        """The memory budgets that were compared at, in bytes."""
        return sorted({o.budget for o in self.outcomes if o.scenario == scenario and o.budget is not None})

    def of(self, scenario: str, method: str, budget: int | None = None) -> list[Outcome]:
        """Outcomes of a method by seed: of a budget, else those without one, else of its largest budget."""
        mine = [o for o in self.outcomes if (o.scenario, o.method) == (scenario, method)]
        if not mine:
            raise BadInput(
                f"no outcome of {method!r} in scenario {scenario!r}{nearest(method, self.methods(scenario))}"
            )
        if budget is None and all(o.budget is not None for o in mine):
            budget = max(o.budget for o in mine if o.budget is not None)
        return sorted((o for o in mine if o.budget == budget), key=lambda o: o.seed)

    def figure(
        self, scenario: str, method: str, name: str, budget: int | None = None, view: str = "served"
    ) -> Mean | None:
        """Mean and interval over seeds of a figure of the history; None where a seed has it not."""
        return self._mean(self.of(scenario, method, budget), lambda o: o.figures.get(view, {}).get(name))

    def cost(self, scenario: str, method: str, name: str, budget: int | None = None) -> Mean | None:
        """Mean and interval over seeds of a cost; None where no meter ran.

        ``joint``, ``every_task`` and ``seconds`` are shares of joint training; ``stored`` and ``peak`` are bytes;
        ``rows``, ``parameters``, ``net_score``.
        """
        return self._mean(self.of(scenario, method, budget), lambda o: self._costs(o).get(name))

    def _mean(self, outcomes: Sequence[Outcome], value: Callable[[Outcome], float | None]) -> Mean | None:
        values = [value(o) for o in outcomes]
        known = [v for v in values if v is not None]
        return interval(known) if known and len(known) == len(values) else None

    def _costs(self, of: Outcome) -> dict[str, float]:
        if of.ledger is None:
            return {}
        ledger = of.ledger
        found: dict[str, float] = {
            "stored": ledger.stored_bytes, "peak": ledger.peak_bytes, "rows": ledger.rows,
            "parameters": ledger.parameters,
        }  # fmt: skip
        lines = [self._line(of, name) for name in (JOINT, NAIVE)]
        if lines[0] is not None and lines[1] is not None:
            found |= relative(ledger, lines[0], lines[1])
        if of.history.higher and (acc := of.figures["served"].get("acc", 0.0)) > 0:
            found["net_score"] = net_score(acc, ledger)
        return found

    def _line(self, of: Outcome, name: str) -> Ledger | None:
        """The ledger of joint or naive training, of the same seed where there is one."""
        mine = self.of(of.scenario, name)
        return next((o.ledger for o in mine if o.seed == of.seed), mine[0].ledger)

    def beside(
        self, scenario: str, method: str, other: str, name: str = "acc", budget: int | None = None
    ) -> Mean | None:
        """The difference of a figure to that of another method, paired by seed; None where no seed is shared."""
        mine, theirs = (
            {o.seed: value for o in outcomes if (value := o.figures["served"].get(name)) is not None}
            for outcomes in (self.of(scenario, method, budget), self.of(scenario, other))
        )
        return paired(mine, theirs) if mine.keys() & theirs.keys() else None

    def uninformative(self, scenario: str) -> list[str]:
        """Why the comparison tells little, a sentence for each method; empty where naive < method <= joint + 0.02."""
        joint, naive = (self._acc(scenario, line) for line in (JOINT, NAIVE))
        higher = self.of(scenario, JOINT)[0].history.higher
        sign, above = (1.0, ABOVE) if higher else (-1.0, ABOVE * abs(joint))
        found = []
        for method in self.methods(scenario):
            mine = self._acc(scenario, method)
            name, low, high = (said(value, higher) for value in (mine, naive, joint))
            if method not in (JOINT, NAIVE) and sign * mine <= sign * naive:
                found.append(f"{method} ({name}) is no better than naive training ({low})")
            if method != JOINT and sign * mine > sign * joint + above:
                found.append(f"{method} ({name}) is above joint training ({high}), which so is no upper line")
        if sign * naive >= sign * joint:
            found.append("naive training is as good as joint training: there is nothing to forget")
        return found

    def _acc(self, scenario: str, method: str) -> float:
        found = self.figure(scenario, method, "acc")
        if found is None:
            raise BadInput(f"{method} has no average accuracy in scenario {scenario!r}; record after every learn")
        return found.mean

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        outcomes = [o.to_json() for o in self.outcomes]
        return {"version": VERSION, "name": self.name, "facts": dict(self.facts), "outcomes": outcomes}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Comparison:
        """The inverse of ``to_json``. Raises BadInput for anything else."""
        try:
            outcomes = [Outcome.from_json(each) for each in facts["outcomes"]]
            return cls(facts["name"], outcomes, facts["facts"])
        except (KeyError, TypeError) as error:
            raise BadInput(f"this is no comparison: {error!r}; give what Comparison.to_json() returned") from None


def said(value: float, higher: bool) -> str:
    """A figure in a sentence."""
    return f"{100 * value:.1f}%" if higher else f"{value:.3g}"
