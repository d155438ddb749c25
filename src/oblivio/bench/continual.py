"""Continual methods beside each other: every method on a stream, in scenarios, over seeds, at one budget.

The order of the classes and the training are drawn by the same seed number from streams of their own. Joint and naive
training are always among them. Each outcome is kept under a hash of all that determines it, so that a comparison that
was stopped goes on where it was; a method that fails is told with its reason and does not stop the others.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from oblivio import data, methods
from oblivio.audits.continual import Comparison, Outcome, page
from oblivio.audits.continual.comparison import JOINT, NAIVE
from oblivio.audits.continual.resources import rows_within
from oblivio.bench import continual_memory
from oblivio.bench.comparison import root
from oblivio.core.errors import BadInput, Stopped, nearest
from oblivio.core.files import write_bytes
from oblivio.core.run import environment
from oblivio.data.streams.experience import SCENARIOS, Stream
from oblivio.data.streams.named import KINDS, stream_options
from oblivio.jobs import cache
from oblivio.jobs.course import STATE, Course, Watching, named, network_of, start
from oblivio.jobs.learning import refusal
from oblivio.jobs.method import choose
from oblivio.jobs.network import Network

FILES = ("jobs/course.py", "data/streams/named.py", "audits/continual/resources.py")  # beside the method's own
SCHEMA = 1
PAIR = re.compile(r"\[\s+([^\s,]+),\s+([^\s,]+)\s+\]")  # a mean and half its interval: on one line
FIGURES = ("acc", "aia", "fm", "la")
COSTS = {"cost": "joint", "stored": "stored", "rows": "rows"}


@dataclass(frozen=True)
class Plan:
    """What is to be compared.

    Attributes:
        stream: its name, as ``oblivio.data.stream`` has it.
        scenarios: ``class``, ``task``, ``domain``.
        names: methods; joint and naive training come by themselves.
        seeds: how many: 0, 1, ...
        options: of the stream, but for scenario and order.
        shared: settings that every method gets that has them.
        settings: of single methods, which ``shared`` goes over.
        rows: that every method stores that stores any; None: as it has them.
        bytes: in place of rows, so many bytes for the rows and what is stored beside them.
        model, model_options: the network; None: the default for the stream.
    """

    stream: str
    scenarios: Sequence[str]
    names: Sequence[str]
    seeds: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rows: int | None = None
    bytes: int | None = None
    model: str | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """Joint and naive training, then the methods."""
        return list(dict.fromkeys([JOINT, NAIVE, *self.names]))

    def of(self, name: str) -> dict[str, Any]:
        """The settings of a method that are not its defaults."""
        spec = methods.spec(NAIVE if name == JOINT else name)
        return {**self.settings.get(spec.id, {}), **{n: v for n, v in self.shared.items() if n in spec.settings}}


@dataclass(frozen=True)
class Found:
    """What came of it: ``comparison`` is None where joint or naive training failed everywhere.

    Attributes:
        failed: by ``scenario, seed: method`` the reason.
        refused: by ``scenario: method`` why it is not for that.
        notes: what else is to be known of single methods.
    """

    comparison: Comparison | None
    failed: Mapping[str, str]
    refused: Mapping[str, str]
    notes: Sequence[str] = ()


@dataclass
class Seed:
    """One scenario with one seed: its stream and untrained model, made once, and the methods that it allows."""

    plan: Plan
    scenario: str
    number: int

    @cached_property
    def stream(self) -> Stream:
        """The stream in the order that the seed gives, where its kind has an order."""
        kind, dash, _ = self.plan.stream.partition("-")
        ordered = dash and kind in KINDS and "order" in stream_options(kind) and not _listed(self.plan.options)
        options = {**self.plan.options, "scenario": self.scenario} | ({"order": self.number} if ordered else {})
        return data.stream(self.plan.stream, **options)

    @cached_property
    def network(self) -> Network:
        """The network of all methods."""
        return network_of(self.stream, self.plan.model, self.plan.model_options)

    @cached_property
    def model(self) -> nn.Module:
        """Where all methods start."""
        return start(self.network, self.stream, self.number)

    @cached_property
    def digest(self) -> str:
        """A hash of all rows, in their order, and of how they stand in the stream."""
        rows = [cache.digest(e.rows) for e in (*self.stream.train, *self.stream.test)]
        valid = [cache.digest(e.valid) for e in self.stream.train if e.valid is not None]
        return cache.key({"rows": rows, "valid": valid, "stream": self.stream.describe()})

    @cached_property
    def refused(self) -> dict[str, str]:
        """Methods that are not for this stream, with the reason."""
        found = {name: refusal(name, self.stream) for name in self.plan.names}
        return {name: why for name, why in found.items() if why is not None}

    @property
    def names(self) -> list[str]:
        """What is run."""
        return [name for name in self.plan.lines if name not in self.refused]

    def course(self, name: str, more: Mapping[str, Any] | None = None) -> Course:
        """A method on this stream at the memory that the plan gives all, with ``more`` settings.

        Raises BadInput as the method does.
        """
        of, settings = NAIVE if name == JOINT else name, {**self.plan.of(name), **(more or {})}
        size = self.memory(of, settings)
        chosen = choose(of, {**settings, **size}, kind="continual")
        budget = self.plan.bytes if size else None
        return Course(name, chosen.plan, self.stream, self.model, self.number, chosen.settings, budget=budget)

    def memory(self, name: str, settings: Mapping[str, Any]) -> dict[str, int]:
        """The setting that holds how many rows a method stores, at the plan's budget; none for one that stores none."""
        setting = continual_memory.setting(name, settings) if self.plan.rows or self.plan.bytes else None
        if setting is None:
            return {}
        if self.plan.bytes is None:
            return {setting: self.plan.rows or 0}
        row = continual_memory.bytes_a_row(name, settings, setting, self.stream, self.model)
        return {setting: rows_within(self.plan.bytes, row)}

    def outcome(self, name: str, watch: Watching) -> Outcome:
        """What comes of a method, or came of it before."""
        course = self.course(name)
        place = root() / "continual" / self.key(course)
        kept = course.kept(place) if course.finished(place) else None
        if kept is None:
            kept = course.run(place, watch(course))[1]
        shutil.rmtree(place / STATE, ignore_errors=True)
        return replace(kept, budget=course.budget)

    def key(self, course: Course) -> str:
        """A hash of what determines the outcome of a course."""
        module = methods.spec(NAIVE if course.name == JOINT else course.name).module
        architecture = self.network.architecture
        own = [] if ":" in architecture.name else [f"networks/{architecture.name.replace('-', '_')}.py"]
        if module.startswith("oblivio."):
            own.append(module.removeprefix("oblivio.").replace(".", "/") + ".py")
        theirs = "" if module.startswith("oblivio.") else inspect.getsource(importlib.import_module(module))
        return cache.key({
            "method": course.name, "plan": repr(course.plan), "seed": self.number, "rows": self.digest,
            "network": architecture.to_json(), "code": cache.code([*FILES, *own]), "own": theirs, **environment(),
        })  # fmt: skip


def compare(
    plan: Plan,
    tell: Callable[[str, int, int], None] = lambda words, done, total: None,
    watch: Watching = lambda course: (),
) -> Found:
    """Run what is not done yet, and put all outcomes together.

    Args:
        plan: what is compared.
        tell: called with what comes next, how many runs are done, and how many there are.
        watch: for each run what is called after every step.

    Raises:
        BadInput: an unknown stream, scenario, method or setting.
    """
    check(plan)
    outcomes: list[Outcome] = []
    failed: dict[str, str] = {}
    refused: dict[str, str] = {}
    facts: dict[str, str] = {}
    total, done = len(plan.scenarios) * plan.seeds * len(plan.lines), 0
    for scenario in plan.scenarios:
        for number in range(plan.seeds):
            seed = Seed(plan, scenario, number)
            facts = facts or described(plan, seed)
            refused |= {f"{scenario}: {name}": why for name, why in seed.refused.items()}
            for name in seed.names:
                tell(f"{scenario}, seed {number}: {name}", done, total)
                found = attempt(seed, name, watch)
                if isinstance(found, str):
                    failed[f"{scenario}, seed {number}: {name}"] = found
                else:
                    outcomes.append(found)
                done += 1
            done += len(seed.refused)
    return Found(together(plan, outcomes, facts), failed, refused, notes(plan, outcomes))


def attempt(seed: Seed, name: str, watch: Watching) -> Outcome | str:
    """The outcome, or in words why there is none: one method's fault is no other's."""
    try:
        return seed.outcome(name, watch)
    except (BadInput, Stopped) as error:
        return str(error)
    except Exception as error:  # whatever a method raises: the table has to go on, and says so
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def together(plan: Plan, outcomes: Sequence[Outcome], facts: Mapping[str, str]) -> Comparison | None:
    """The comparison of the scenarios in which joint and naive training came to an end."""
    names = {s: {o.method for o in outcomes if o.scenario == s} for s in plan.scenarios}
    whole = [o for o in outcomes if {JOINT, NAIVE} <= names[o.scenario]]
    return Comparison(plan.stream, whole, facts) if whole else None


def notes(plan: Plan, outcomes: Sequence[Outcome]) -> list[str]:
    """Where memory was to be equal and is not: methods without such a setting, and those that stored more."""
    if plan.rows is None and plan.bytes is None:
        return []
    found = [continual_memory.unsized(name, plan.of(name)) for name in plan.names]
    return [words for words in [*found, *(over(plan, name, outcomes) for name in plan.names)] if words is not None]


def over(plan: Plan, name: str, outcomes: Sequence[Outcome]) -> str | None:
    """What is to be said of a method that stored more than it was given."""
    ledgers = [o.ledger for o in outcomes if o.method == name and o.ledger is not None]
    rows = max((ledger.rows for ledger in ledgers), default=0)
    size = max((ledger.carried.get("rows", 0) for ledger in ledgers), default=0)
    if rows <= (plan.rows or rows) and size <= (plan.bytes or size):
        return None
    return f"{name} stored up to {rows:,} rows ({size:,} bytes), more than the memory that was given"


def write(folder: Path, found: Found, facts: Mapping[str, Any]) -> None:
    """``STREAM.json``, with every outcome on a line of its own, and ``STREAM.html``."""
    assert found.comparison is not None
    whole = found.comparison.to_json()
    outcomes = ",\n".join(json.dumps(outcome, sort_keys=True) for outcome in whole.pop("outcomes"))
    record = {"schema": SCHEMA, **facts, **whole, "figures": figures(found.comparison), "failed": dict(found.failed),
              "refused": dict(found.refused), "notes": list(found.notes), "outcomes": []}  # fmt: skip
    text = PAIR.sub(r"[\1, \2]", json.dumps(record, indent=2)).replace(
        '"outcomes": []', f'"outcomes": [\n{outcomes}\n  ]'
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{found.comparison.name}.json", f"{text}\n".encode())
    write_bytes(folder / f"{found.comparison.name}.html", page(found.comparison).encode())


def figures(of: Comparison) -> dict[str, dict[str, dict[str, list[float | None]]]]:
    """By scenario and method the mean of each figure and half the width of its interval, for whoever reads on."""
    found: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for scenario in of.scenarios:
        for method in of.methods(scenario):
            means = {name: of.figure(scenario, method, name) for name in FIGURES}
            means |= {name: of.cost(scenario, method, kind) for name, kind in COSTS.items()}
            found.setdefault(scenario, {})[method] = {
                name: [round(mean.mean, 5), None if mean.half is None else round(mean.half, 5)]
                for name, mean in means.items() if mean is not None
            }  # fmt: skip
    return found


def check(plan: Plan) -> None:
    """Raises BadInput for what ``compare`` cannot do."""
    for scenario in plan.scenarios:
        if scenario not in SCENARIOS:
            raise BadInput(f"--scenario: there is no scenario {scenario!r}{nearest(scenario, SCENARIOS)}")
    if plan.seeds < 1:
        raise BadInput(f"--seeds {plan.seeds}: at least one is needed; an interval needs two")
    if plan.rows is not None and plan.bytes is not None:
        raise BadInput("--buffer and --memory: give rows or bytes, not both")
    if any(given is not None and given < 1 for given in (plan.rows, plan.bytes)):
        raise BadInput("--buffer and --memory must be above 0")
    for option in ("order", "scenario"):
        if option in plan.options:
            raise BadInput(f"--stream-option {option}: the comparison gives it itself")
    specs = [methods.spec(name) for name in (*plan.names, NAIVE)]
    for spec in specs:
        if spec.kind != "continual":
            raise BadInput(f"{spec.id} is of the kind {spec.kind}; this comparison is of continual methods")
    for name in plan.shared:
        if not any(name in spec.settings for spec in specs):
            known = {setting for spec in specs for setting in spec.settings}
            raise BadInput(f"--set: none of these methods has a setting {name!r}{nearest(name, known)}")
    for name in plan.names:
        choose(name, plan.of(name), kind="continual")


def all_methods() -> list[str]:
    """Every continual method."""
    return [name for name in methods.names if methods.spec(name).kind == "continual"]


def described(plan: Plan, seed: Seed) -> dict[str, str]:
    """What the page says of the comparison."""
    memory = f"{plan.rows} rows" if plan.rows else f"{plan.bytes:,} bytes" if plan.bytes else "as each method has it"
    rows = sum(map(len, seed.stream.train))
    return {
        "stream": f"{plan.stream}, {len(seed.stream)} experiences, {rows:,} rows",
        "network": named(seed.network),
        "seeds": f"0 to {plan.seeds - 1}, of class order and, apart from it, of training",
        "memory of methods that store rows": memory,
        "settings of all methods": ", ".join(f"{n} {v}" for n, v in plan.shared.items()) or "each its own defaults",
    }


def _listed(options: Mapping[str, Any]) -> bool:
    """Whether the classes of each task were given, in their order."""
    return isinstance(options.get("tasks"), list)
