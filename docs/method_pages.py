"""Pages made from the code and the records when the documentation is built: one a method, and parts of the chooser."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import generate
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from tables import table

from oblivio import learners, methods, problems
from oblivio.cli import lookup, records
from oblivio.cli.settings import shape
from oblivio.registry import Registry, Spec

RESULTS = Path(__file__).parent.parent / "results" / "bench" / "unlearning"
TUNED = RESULTS.parents[1] / "tune"
KINDS = {"unlearning": "Methods", "continual": "Continual learning", "piece": "Pieces", "protection": "Protection",
         "learner": "Learners"}  # fmt: skip
REST = ("Equation", "Needs", "Fails")  # of a docstring, which have places of their own


@cache
def specs() -> dict[str, Spec]:
    """Everything that has a page, by id."""
    found: dict[str, Spec] = {}
    for registry in (methods.registry, learners.registry):
        found |= {name: registry.spec(name) for name in registry.names}
    return found


def registry_of(spec: Spec) -> Registry:
    """Where it is registered."""
    return learners.registry if spec.kind == "learner" else methods.registry


@cache
def results() -> dict[str, dict[str, Any]]:
    """Every committed comparison, by problem; its methods in the order of their ranks."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    for each in found.values():
        each["methods"] = dict(sorted(each["methods"].items(), key=lambda pair: pair[1]["rank"]))
    return found


def link(name: str) -> str:
    """To the page of a method."""
    return f"[`{name}`](methods/{name}.md)"


# --- one page


def page(spec: Spec) -> str:
    """Equation, when to use it, when not, claims, settings, command."""
    told = lookup.fields(spec.doc)
    equation = told.get("Equation", "")
    more = [f"{heading}: {text}" for heading, text in told.items() if heading not in REST]
    blocks = [
        f"# {spec.id}", spec.summary, f"Equation: {equation}" if equation else "", *more,
        "## When to use it", "\n".join(f"- {line}" for line in suits(spec)),
        "## When not", "\n".join(f"- {line}" for line in fails(spec, told)),
        "## Claims", claims(spec),
        *(["## Beside other methods", ranks] if (ranks := ranked(spec.id)) else []),
        *(["## Settings", settings(spec)] if spec.settings else []),
        *how(spec),
        "" if spec.paper.startswith("no paper") else f"Paper: {spec.paper}.",
    ]  # fmt: skip
    return "\n\n".join(block for block in blocks if block) + "\n"


def how(spec: Spec) -> list[str]:
    """What to type."""
    if spec.kind in ("learner", "protection"):
        return ["## In Python", f"```python\nimport oblivio\n\n{lookup.example(spec)}\n```"]
    if learns(spec):
        return [
            "## In Python",
            f"```python\n{learning(spec)}\n```",
            "## Command",
            f"```console\n$ {lookup.example(spec)}\n```",
        ]
    return ["## Command", f"```console\n$ {lookup.example(spec)}\n```"]


def learns(spec: Spec) -> bool:
    """Whether it is of a learner that learns experience by experience."""
    return spec.kind == "continual" or (spec.kind == "piece" and spec.needs == ("new",))


def learning(spec: Spec) -> str:
    """A learner with the method, or with the piece on a method, and what it does."""
    how = f'"{spec.id}"' if spec.kind == "continual" else f'"er", pieces=["{spec.id}"]'
    return (
        "import oblivio\n\n"
        f'stream = oblivio.data.split("digits", tasks=5, scenario="{spec.scenarios[0]}")\n'
        f"learner = oblivio.learner(model, {how})\n"
        "for experience in stream.train:\n    learner.learn(experience)"
    )


def suits(spec: Spec) -> list[str]:
    """What it needs, serves and costs."""
    told = lookup.fields(spec.doc).get("Needs", "")
    if learns(spec):
        lines = [f"It is for streams in the scenarios {', '.join(spec.scenarios)}, on {', '.join(spec.tasks)}."]
        return [*lines, *([f"It needs: {told}"] if told else []), *([f"It costs: {spec.cost}."] if spec.cost else [])]
    served = " and ".join(lookup.REQUESTS[kind] for kind in spec.serves)
    lines = [f"It serves requests for {served}, on {', '.join(spec.tasks)}."]
    lines += [f"It needs: {told}"] if told else []
    lines += [f"It costs: {spec.cost}."] if spec.cost else []
    return [*lines, f"Its guarantee: {spec.guarantee}."]


def fails(spec: Spec, told: Mapping[str, str]) -> list[str]:
    """What it refuses and where it breaks down."""
    lines = [f"It refuses {_other(spec)}: {spec.refusal}."] if spec.refusal else []
    return (
        [*lines, told["Fails"][:1].upper() + told["Fails"][1:]]
        if "Fails" in told
        else lines or ["Nothing is known that it fails on."]
    )


def _other(spec: Spec) -> str:
    return "requests for some rows of a class" if spec.serves == ("class",) else "requests for whole classes"


def claims(spec: Spec) -> str:
    """The verdicts of its records, with the reasons."""
    found = records.of(spec.id, registry_of(spec).names)
    lines = [f"- [`{r['id']}`](../claims.md#{r['id']}) {r['verdict']} over {len(r['seeds'])} seeds: {r['reason']}."
             for r in found]  # fmt: skip
    return "\n".join(lines) if lines else "No claim is recorded yet."


def ranked(name: str) -> str:
    """Its line in every committed comparison."""
    rows = []
    for problem, found in results().items():
        if name in found["methods"]:
            line, place = found["methods"][name], list(found["methods"]).index(name) + 1
            rows.append([f"`{problem}`", f"{place} of {len(found['methods'])}", accepted(line), _mean(line["distance"]),
                         f"{100 * fmean(line['cost']):.1f}%" if line["cost"] else "–"])  # fmt: skip
    heads = ["problem", "rank", "accepted", "distance", "cost, of retraining"]
    return f"{table(heads, rows)}\n\n[All of them](../comparisons.md)" if rows else ""


def accepted(line: Mapping[str, Any]) -> str:
    """How often the audit accepted it."""
    return f"{line['words'].count('ACCEPTED')} of {len(line['words'])}"


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f}" if values else "stopped"


def settings(spec: Spec) -> str:
    """Every setting with its default."""
    shapes = {name: shape(setting) for name, setting in spec.settings.items()}
    rows = [[f"`{n}`", f"`{spec.settings[n].default}`", of.type, of.allowed] for n, of in shapes.items()]
    return table(["setting", "default", "type", "allowed"], rows)


# --- the chooser


def listed(wanted: Callable[[Spec], bool]) -> str:
    """The methods that are wanted, with what they do."""
    rows = [[link(spec.id), spec.summary, spec.guarantee, verdict(spec)] for spec in specs().values() if wanted(spec)]
    return table(["method", "what it does", "guarantee", "claims"], rows) if rows else "None yet."


def verdict(spec: Spec) -> str:
    """What its records say."""
    return records.verdict(spec.id, registry_of(spec).names)


def reads(spec: Spec, name: str) -> bool:
    """Whether it cannot do without a source or record."""
    return any(name in need.split("|") and len(need.split("|")) == 1 for need in spec.needs)


def _forgets(spec: Spec) -> bool:
    return spec.kind == "unlearning"


def stores_rows(spec: Spec) -> bool:
    """Whether a continual method keeps rows of earlier experiences: whether its plan has a memory."""
    from oblivio.core.part import walk
    from oblivio.sources.memory import Memory

    return any(isinstance(part, Memory) for _, part in walk(methods.registry.get(spec.id)()))


def learned(wanted: Callable[[Spec], bool]) -> str:
    """The continual methods that are wanted, with what they do and cost."""
    rows = [[link(spec.id), spec.summary, ", ".join(spec.scenarios), spec.cost, verdict(spec)]
            for spec in specs().values() if spec.kind == "continual" and wanted(spec)]  # fmt: skip
    return table(["method", "what it does", "scenarios", "cost", "claims"], rows) if rows else "None yet."


def scoreboard() -> str:
    """Every method and piece of continual learning, with what its claims said."""
    found = [(spec, record) for spec in filter(learns, specs().values())
             for record in records.of(spec.id, registry_of(spec).names)]  # fmt: skip
    rows = [[link(spec.id), f"[`{record['id']}`](claims.md#{record['id']})", record["verdict"],
             str(len(record["seeds"])), lookup.brief(spec.paper)] for spec, record in found]  # fmt: skip
    return table(["method or piece", "claim", "verdict", "seeds", "paper"], rows) if rows else "None yet."


def held_up() -> str:
    """Every recorded claim that fails, with its reason."""
    lines = []
    for path in sorted(records_folder().glob("*.json")):
        record = json.loads(path.read_text())
        if record["verdict"] == "fails":
            lines.append(f"### {record['id']}\n\n{record['reason']}.\n\n[The whole record](claims.md#{record['id']})")
    return "\n\n".join(lines) if lines else "Every recorded claim holds."


def records_folder() -> Path:
    """Where records of claims lie."""
    from oblivio.claims.records import FOLDER

    return FOLDER


def rejected() -> str:
    """For every comparison, how many methods the audit ever accepted, and which."""
    rows = []
    for problem, found in results().items():
        lines = found["methods"]
        took = [link(name) for name, line in lines.items() if "ACCEPTED" in line["words"]]
        rows.append([f"`{problem}`", problems.spec(found["problem"]).says, str(len(lines)), ", ".join(took) or "none"])
    return table(["problem", "what goes", "methods", "accepted on at least one seed"], rows) if rows else "None yet."


def compared() -> str:
    """All comparisons: the table of each."""
    return "\n\n".join(_compared(problem, found) for problem, found in results().items()) or "None yet."


def searched() -> str:
    """What equal searches found: the distance at the defaults, and at the best settings."""
    found = [json.loads(path.read_text()) for path in sorted(TUNED.glob("*.json"))]
    rows = [[link(each["method"]), ", ".join(f"`{name}`" for name in each["problems"]), f"{each['default']:.2f}",
             f"{each['distance']:.2f}", ", ".join(f"{k} = {_short(v)}" for k, v in each["settings"].items())]
            for each in sorted(found, key=lambda each: each["distance"])]  # fmt: skip
    return table(["method", "searched on", "at the defaults", "found", "settings"], rows) if rows else "None yet."


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


SHOWN = {"forget": "forgotten", "affected": "affected", "kept": "test", "mia_lira": "LiRA", "linear_probe": "probe",
         "relearning": "relearned"}  # fmt: skip


def _compared(problem: str, found: Mapping[str, Any]) -> str:
    shown = [name for name in SHOWN if name in found["original"]["figures"]]
    lines = [[str(rank), link(name), accepted(line), said(line["distance"]),
              *(said(line["figures"].get(each, []), 3) for each in shown),
              f"{100 * fmean(line['cost']):.1f}%" if line["cost"] else "–"]
             for rank, (name, line) in enumerate(found["methods"].items(), 1)]  # fmt: skip
    known = [("original", found["original"]), ("retrained", found["references"][0])]
    lines += [["", name, "", said(line["distance"]), *(said(line["figures"].get(each, []), 3) for each in shown), ""]
              for name, line in known]  # fmt: skip
    heads = ["rank", "method", "accepted", "distance", *(SHOWN[name] for name in shown), "cost, of retraining"]
    refused = "; ".join(f"{name}: {why}" for name, why in found["refused"].items())
    of = problems.spec(found["problem"])
    return "\n\n".join([
        f"## {problem}", f"{of.dataset}, {of.network}: {of.says}. Goal: {of.goal}.", table(heads, lines),
        f"![Distance and cost of every method on {problem}](comparisons/{problem}.svg)",
        *([f"Not run: {refused}."] if refused else []), f"`{found['command']}`",
    ])  # fmt: skip


def said(values: Sequence[float], digits: int = 2) -> str:
    """Mean and half width of the 95% interval."""
    from oblivio.bench.standing import said as words

    return words(values, digits)


PARTS: dict[str, Callable[[], str]] = {
    "without-retain": lambda: listed(lambda s: _forgets(s) and not (reads(s, "retain") or reads(s, "train"))),
    "without-forget": lambda: listed(lambda s: _forgets(s) and not reads(s, "forget")),
    "without-labels": lambda: listed(lambda s: _forgets(s) and not s.labels),
    "guaranteed": lambda: listed(lambda s: s.guarantee != "empirical"),
    "keeps-coming": lambda: listed(lambda s: s.kind == "learner"),
    "with-memory": lambda: learned(stores_rows),
    "without-memory": lambda: learned(lambda s: not stores_rows(s)),
    "learning-pieces": lambda: listed(lambda s: s.kind == "piece" and learns(s)),
    "continual-claims": scoreboard,
    "held-up": held_up,
    "rejected": rejected,
    "compared": compared,
    "searched": searched,
}


# --- called by MkDocs


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The parts of a page that are made when the documentation is built."""
    return generate.made(markdown, PARTS)


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """A page for every method, and the figures of the comparisons."""
    for name, spec in specs().items():
        files.append(File.generated(config, f"methods/{name}.md", content=page(spec)))
    for path in sorted(RESULTS.glob("*.svg")):
        files.append(File.generated(config, f"comparisons/{path.name}", abs_src_path=str(path)))
    return files


def on_config(config: MkDocsConfig, **_: Any) -> MkDocsConfig:
    """The pages of methods in the navigation, by kind."""
    groups = [{title: [{name: f"methods/{name}.md"} for name, spec in specs().items() if spec.kind == kind]}
              for kind, title in KINDS.items() if any(spec.kind == kind for spec in specs().values())]  # fmt: skip
    assert config.nav is not None
    config.nav.append({"Methods, one by one": groups})
    return config
