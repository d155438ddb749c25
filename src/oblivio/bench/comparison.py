"""A comparison: every method that a standard problem allows, over seeds, judged beside the same models by one audit.

What is done is kept under a hash of all that determines it, so that a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from oblivio import methods, problems, records
from oblivio.audits.audit import audit
from oblivio.audits.report import Report
from oblivio.audits.verdict import Verdict, judge, named
from oblivio.bench.standing import Standing, standing
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.files import read_json, write_json
from oblivio.core.known import Known
from oblivio.core.problem import Problem
from oblivio.core.run import environment
from oblivio.jobs import cache, estimate, serving
from oblivio.jobs.ladder import candidates
from oblivio.jobs.method import Chosen, apply, choose
from oblivio.problems.case import Case
from oblivio.registry import Spec

PACKAGE = Path(__file__).parent.parent
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is to be compared.

    Attributes:
        problem: id of a standard problem.
        names: methods; those that the problem does not allow are listed with the reason.
        seeds: how many: 0, 1, ...
        references: retrained models for each.
        settings: of methods, in place of their defaults.
    """

    problem: str
    names: Sequence[str]
    seeds: int = 3
    references: int = 3
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def chosen(self, name: str) -> Chosen:
        """A method with its settings."""
        return choose(name, self.settings.get(name, {}))


@dataclass
class Seed:
    """One seed of a comparison: its case, loaded once, and the methods that it allows."""

    plan: Plan
    number: int
    made: Counter[tuple[str, str]] = field(default_factory=Counter)

    @cached_property
    def case(self) -> Case:
        """Original and references, trained now or kept from before, with every record that a method needs."""
        task = problems.spec(self.plan.problem).task
        suiting = [spec for spec in map(methods.spec, self.plan.names) if task in spec.tasks]
        needed = {need for spec in suiting for need in spec.needs}
        found = problems.load(self.plan.problem, self.number, self.plan.references,
                              records=sorted(needed & set(records.names())))  # fmt: skip
        found.start.known = Known()
        return found

    @cached_property
    def refused(self) -> dict[str, str]:
        """Methods that the problem does not allow, with the reason."""
        found = {name: serving.refusal(self.case.start, methods.spec(name)) for name in self.plan.names}
        return {name: why for name, why in found.items() if why is not None}

    @property
    def names(self) -> list[str]:
        """Methods that are run."""
        return [name for name in self.plan.names if name not in self.refused]

    def key(self, name: str) -> str:
        """A hash of what determines the outcome of a method here."""
        plan, spec = self.plan.chosen(name).plan, methods.spec(name)
        file = spec.module.removeprefix("oblivio.").replace(".", "/") + ".py"
        return _hash([self._start, repr(plan), spec.module, cache.code((file, "problems/loading.py"))])

    @cached_property
    def _start(self) -> str:
        of = problems.spec(self.plan.problem)
        made_of = [dataclasses.asdict(of), self.number, self.plan.references,
                   cache.code(("problems/loading.py", *cache.TRAINERS)), environment()]  # fmt: skip
        return _hash(made_of)

    def outcome(self, name: str) -> tuple[Problem | None, dict[str, Any]]:
        """The problem after a method with its cost; None where it broke off or refused the rows, with the reason."""
        chosen, place = self.plan.chosen(name), root() / self.key(name)
        try:
            changed, seconds = apply(chosen.plan, self.case.start, place)
        except Stopped as stop:
            return None, {"stopped": str(stop)}
        except BadInput as error:  # what only the rows show, such as a column that is missing
            return None, {"refused": str(error)}
        return changed, {"rows": sum(changed.passes.values()), "seconds": seconds}

    def row(self, tell: Tell) -> dict[str, Any]:
        """All methods of this seed run and judged, or what was found before."""
        kept = root() / f"{_hash([*map(self.key, self.names), _audits()])}.json"
        if kept.exists():
            tell(f"seed {self.number}: kept from before")
            return dict(read_json(kept))
        done: dict[str, tuple[Problem | None, dict[str, Any]]] = {}
        refused = dict(self.refused)
        for name in self.names:
            tell(f"seed {self.number}: {name}")
            changed, cost = self.outcome(name)
            if "refused" in cost:
                refused[name] = cost["refused"]
            else:
                done[name] = changed, cost
        tell(f"seed {self.number}: the audit of {len(done)} methods")
        found = {**self._judged(done), "refused": refused}
        write_json(kept, found)
        return found

    def _judged(self, done: Mapping[str, tuple[Problem | None, dict[str, Any]]]) -> dict[str, Any]:
        case = self.case
        alive = {name: changed for name, (changed, _) in done.items() if changed is not None}
        report = audit(case.start, case.subjects(**alive), case.classes)
        rows = {
            name: cost | {"of_retraining": cost["rows"] / case.retraining, **seen(report, name)}
            if name in alive else cost for name, (_, cost) in done.items()
        }  # fmt: skip
        known = case.start.known
        assert known is not None
        return {
            "methods": rows, "original": seen(report, "original"),
            "references": [seen(report, name) for name in named(report, "reference")],
            "made": [[what, on, n] for (what, on, _), n in sorted(known.made.items())],
        }  # fmt: skip


def seen(report: Report, name: str) -> dict[str, Any]:
    """A model's verdict, its figures, and how far it is outside of the policy's bands."""
    verdict = judge(report, name)
    figures = {f["id"]: f["values"][name]["value"] for f in report["figures"] if name in f["values"]}
    return {"word": verdict.word, "distance": distance(verdict, report), "figures": figures}


def distance(verdict: Verdict, report: Mapping[str, Any]) -> float:
    """How far the figures of the policy lie outside of their bands, in units of their tolerances, on the average.

    0 where all are inside; figures that do not apply are left out.
    """
    tolerance = {rule["figure"]: rule["tolerance"] for rule in report["policy"]}
    beyond = []
    for check in verdict.checks:
        if check.value is None or check.low is None or check.high is None:
            continue
        above = max(0.0, check.value - check.high) if check.side != "low" else 0.0
        below = max(0.0, check.low - check.value) if check.side != "high" else 0.0
        beyond.append((above + below) / max(tolerance[check.figure], 1e-9))
    return sum(beyond) / len(beyond) if beyond else float("nan")


def compare(plan: Plan, tell: Tell = lambda _: None) -> Standing:
    """Run what is not done yet, and give the standing of all methods.

    Raises:
        BadInput: an unknown problem or method, or fewer than two seeds, from which no interval follows.
    """
    check(plan)
    seeds = [Seed(plan, number) for number in range(plan.seeds)]
    found = []
    for seed in seeds:
        found.append(seed.row(tell))
        seed.__dict__.pop("case")  # its models and tables
    return standing(plan.problem, found)


def check(plan: Plan) -> None:
    """Raises BadInput for what ``compare`` cannot do."""
    problems.spec(plan.problem)
    if plan.seeds < 2:
        raise BadInput(f"--seeds {plan.seeds}: an interval needs two or more")
    for name in plan.names:
        if methods.spec(name).kind != "unlearning":
            raise BadInput(f"{name} is of the kind {methods.spec(name).kind}; a comparison is of methods that forget")


def expected(plan: Plan) -> float:
    """Seconds that a comparison takes on one core if nothing is kept from before, from what one training takes."""
    seconds, case = problems.spec(plan.problem).seconds, outline(plan.problem)
    specs = [spec for spec in map(methods.spec, plan.names) if serving.refusal(case.start, spec) is None]
    shares = sum(_forwards(spec, plan, case) / case.retraining for spec in specs)
    return plan.seeds * (seconds or math.nan) * (1 + plan.references + shares)


def _forwards(spec: Spec, plan: Plan, case: Case) -> float:
    try:
        return estimate.expected(spec, plan.chosen(spec.id).plan, case.start)
    except BadInput:  # what only the rows show: it will be listed as refused
        return 0.0


def outline(problem: str) -> Case:
    """A problem before anything is trained, with all records as if they were made: to ask what it allows."""
    case = problems.outline(problem)
    case.start.records.update({name: {} for name in records.names()})
    return case


def tuned(folder: Path) -> dict[str, dict[str, Any]]:
    """The settings that ``oblivio tune --json`` wrote into a folder, by method. BadInput where there are none."""
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise BadInput(f"--tuned {folder}: there is no file that oblivio tune --json wrote")
    return {each["method"]: each["settings"] for each in found}


def all_methods() -> list[str]:
    """Every registered method that forgets, but for retraining: by the problem's own recipe that is a reference."""
    return candidates()


def root() -> Path:
    """Where outcomes are kept."""
    return cache.root().parent / "outcomes"


def _audits() -> str:
    """A hash of the text of all that looks and judges."""
    files = sorted(path for path in (PACKAGE / "audits").rglob("*.py") if "report" not in path.parts)
    return cache.code([str(path.relative_to(PACKAGE)) for path in files] + [_own()])


def _own() -> str:
    return str(Path(inspect.getfile(compare)).relative_to(PACKAGE))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
