"""The parts of the documentation that are made from the code: ``python docs/generate.py`` writes them into the pages.

A table stands between ``<!-- made: NAME -->`` and ``<!-- end -->``. Blocks of Python in the guides, and commands in the
README, are run, and what they print is written below them. Tests compare all of it with what is made here; of what is
printed the words, since numbers differ from machine to machine.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from job_fields import fields
from language_tables import in_turn, tofu
from tables import table

import oblivio as ob
from oblivio import networks
from oblivio.audits.language import probes as on_texts
from oblivio.audits.language.probes import ATTACKS
from oblivio.audits.policy import POLICIES, TEXTS, Rule
from oblivio.audits.probe import QUESTIONS, known
from oblivio.claims import page, runner
from oblivio.claims.fashion import LIMITS as NEAR
from oblivio.claims.verdict import FALSE
from oblivio.cli.codes import FINISHED, INCONCLUSIVE, REJECTED
from oblivio.data.loading import NAMED
from oblivio.data.published import SETS
from oblivio.jobs.job import Job
from oblivio.jobs.language.job import LanguageJob
from oblivio.jobs.recipe import SHIPPED, Recipe
from oblivio.jobs.section import Section
from oblivio.registry import Spec
from oblivio.tasks import TASKS

DOCS = Path(__file__).parent
PART = re.compile(r"(<!-- made: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


# --- methods


def specs(piece: bool) -> list[Spec]:
    """All methods that make forget or protect, or all pieces, by name."""
    return [spec for spec in _all() if (spec.kind == "piece") == piece and spec.kind != "continual"]


def _all() -> list[Spec]:
    return [ob.methods.spec(name) for name in ob.methods.names]


def _needs(spec: Spec) -> str:
    return ", ".join(f"`{need}`".replace("|", "` or `") for need in spec.needs)


def methods() -> str:
    """Task by method."""
    rows = [
        [f"`{s.id}`", *("yes" if task in s.tasks else "–" for task in TASKS), _needs(s), _requests(s)]
        for s in specs(piece=False)
    ]
    return table(["method", *TASKS, "needs", "requests"], rows)


def continual() -> str:
    """Continual methods: tasks, scenarios, cost."""
    tasks = [task for task in TASKS if task not in ("graph", "links")]
    rows = [
        [f"`{s.id}`", *("yes" if task in s.tasks else "–" for task in tasks), ", ".join(s.scenarios), s.cost, _paper(s)]
        for s in _all()
        if s.kind == "continual"
    ]
    return table(["method", *tasks, "scenarios", "cost", "paper"], rows)


def _requests(spec: Spec) -> str:
    words = {"class": "classes", "rows": "rows", "clean": "manipulated rows"}
    return " and ".join(words[kind] for kind in spec.serves)


def refusals() -> str:
    """What is not served, and why."""
    words = {"class": "whole classes", "rows": "some rows"}
    return table(
        ["method", "refuses", "because"],
        [
            [f"`{s.id}`", " and ".join(words[kind] for kind in words if kind not in s.serves), s.refusal]
            for s in specs(piece=False)
            if s.refusal
        ],
    )


def pieces() -> str:
    """What can be put on a method."""
    rows = [[f"`{s.id}`", s.summary, s.cost, _paper(s)] for s in specs(piece=True)]
    return table(["piece", "what it does", "cost", "paper"], rows)


def papers() -> str:
    """What each method does, what it costs and where it comes from."""
    rows = [[f"`{s.id}`", s.summary, s.cost, _paper(s)] for s in specs(piece=False)]
    return table(["method", "what it does", "cost", "paper"], rows)


def _paper(spec: Spec) -> str:
    return "" if spec.paper.startswith("no paper") else spec.paper


# --- models


SIZES = [
    ("mlp", (1, 28, 28), {}),
    ("small-cnn", (1, 28, 28), {}),
    ("resnet18", (3, 32, 32), {"width": 16}),
    ("resnet18", (3, 32, 32), {}),
    ("vit-tiny", (1, 28, 28), {}),
    ("vit-tiny", (3, 32, 32), {"patch": 4, "width": 192, "depth": 12, "heads": 3}),
]


def sizes() -> str:
    """Weights of networks with ten outputs."""
    rows = []
    for name, inputs, options in SIZES:
        weights = sum(p.numel() for p in networks.build(name, inputs, 10, **options).parameters())
        chosen = ", ".join(f"{k}={v}" for k, v in options.items())
        rows.append([f"`{name}`", chosen or "defaults", " x ".join(map(str, inputs)), f"{weights:,}"])
    return table(["network", "options", "inputs", "weights"], rows)


def options() -> str:
    """What can be set of a network."""
    rows = [
        [f"`{name}`", ", ".join(f"`{k}` = {_value(v)}" for k, v in networks.defaults(name).items()) or "none"]
        for name in networks.names()
    ]
    return table(["network", "options and their defaults"], rows)


def recipes() -> str:
    """The shipped recipes."""
    names = ["optimiser", "lr", "momentum", "wd", "schedule", "epochs", "batch", "augmentation"]
    rows = [[f"`{net}`", *(_setting(recipe, name) for name in names)] for net, recipe in SHIPPED.items()]
    plain = ["your own", *(_setting(Recipe(), name) for name in names)]
    return table(["network", *names], [*rows, plain])


def _setting(recipe: Recipe, name: str) -> str:
    if name == "momentum" and recipe.optimiser != "sgd":
        return "–"
    return _value(getattr(recipe, name))


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)


# --- claims


def claims() -> str:
    """Every claim, and what its record shows."""
    return page.text().replace("\n## ", "\n### ")


# --- data


def sets() -> str:
    """Data sets known by name."""
    rows = [[f"`{name}`", _told(name), "hub" if name in SETS and SETS[name].hub else _place(name)] for name in NAMED]
    return table(["name", "what it is", "comes from"], rows)


def _told(name: str) -> str:
    return SETS[name].origin if name in SETS else (inspect.getdoc(NAMED[name]) or "").partition("\n")[0]


def _place(name: str) -> str:
    return "a file of yours" if name in SETS else "scikit-learn"


# --- the job file


def job() -> str:
    """Every field of a job file."""
    return _of_job(Job)


def language_job() -> str:
    """Every field of a job file for a language model."""
    return _of_job(LanguageJob)


def _of_job(section: type[Section]) -> str:
    rows = [[f"`{path}`", kind, default, words] for path, kind, default, words in fields(section)]
    return table(["field", "what it may be", "default", "what it is"], rows)


# --- the main job, from its records

SHOWN = {"original": "the untouched original", "masked": "the original, its output masked", "noise": "weight noise"}
REQUESTS = {"class": "one class of ten", "rows": "5% random rows"}


def fashion() -> str:
    """Where every method ends on Fashion-MNIST beside retrained models, and its verdicts, as two claims recorded it."""
    figures = {kind: runner.table()[f"fashion_{kind}"].figures for kind in REQUESTS}
    measured = {name for found in figures.values() for name in found}
    names = [*SHOWN, *(s.id for s in specs(piece=False) if s.id in measured)]
    head = ["", *(f"{REQUESTS[k]}: {what}" for k in REQUESTS for what in ("accepted", "forgotten", "kept classes"))]
    return table(head, [[_shown(n), *(cell for f in figures.values() for cell in _gaps(n, f))] for n in names])


def _shown(name: str) -> str:
    return SHOWN.get(name, f"`{name}`")


def _gaps(name: str, figures: Mapping[str, Sequence[float]]) -> list[str]:
    """How often it was accepted; mean distance in points, and the range over the seeds, on forgotten and on kept."""
    if name not in figures:
        return ["refused" if name not in SHOWN else "–", "", ""]
    rows = [[100 * (a - b) for a, b in zip(figures[name + of], figures["references" + of], strict=True)]
            for of in NEAR]  # fmt: skip
    accepted = figures.get(f"{name}_accepted", ())
    times = f"{sum(accepted):.0f} of {len(accepted)}" if accepted else "not judged"
    cells = [f"{fmean(gaps):+.1f} ({min(gaps):+.1f} to {max(gaps):+.1f})" for gaps in rows]
    return [f"**{times}**" if accepted and all(accepted) else times, *cells]


# --- the audit


def probes() -> str:
    """Every figure, by question."""
    rows = [[QUESTIONS[p.question], f"`{p.id}`", p.says, _summary(p.measure)] for p in known().values()]
    return table(["question", "figure", "what", "how"], rows)


def _summary(measure: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(measure) or "").partition("\n\n")[0].split()).replace("``", "`")


def language_probes() -> str:
    """Every figure of language models, by question."""
    rows = [[QUESTIONS[p.question], f"`{p.id}`", ATTACKS.get(p.id, "–"), p.says, _summary(p.measure)]
            for p in on_texts.known().values()]  # fmt: skip
    return table(["question", "figure", "attack", "what", "how"], rows)


def policies() -> str:
    """What decides, for every goal."""
    return _of_policies(POLICIES)


def language_policies() -> str:
    """What decides of language models, for every goal."""
    return _of_policies(TEXTS)


def _of_policies(of: Mapping[str, Sequence[Rule]]) -> str:
    sides = {"high": "not above", "low": "not below", "both": "inside"}
    rows = [[f"`{goal}`", f"`{r.figure}`", f"{sides[r.side]} the band about: {r.against}", f"{r.tolerance:g}", r.about]
            for goal, rules in of.items() for r in rules]  # fmt: skip
    return table(["goal", "figure", "must be", "tolerance", "shows power on"], rows)


def verdicts() -> str:
    """What the policy made of models that had forgotten nothing, and of fresh retrained ones, over ten seeds."""
    found = {kind: runner.table()[f"verdict_{kind}"] for kind in REQUESTS}
    head = ["judged", *(REQUESTS[kind] for kind in found)]
    rows = [[f"{FALSE[name]}: rejected", *(_times(record, f"{name}_rejected") for record in found.values())]
            for name in FALSE]  # fmt: skip
    fresh = {"fresh_accepted": "a freshly retrained model: accepted",
             "fresh_rejected_share": "four of these, each in turn: share rejected",
             "fresh_inconclusive_share": "four of these, each in turn: share inconclusive"}  # fmt: skip
    rows += [[words, *(_times(record, name) for record in found.values())] for name, words in fresh.items()]
    return table(head, rows)


def _times(record: Any, name: str) -> str:
    if record is None or name not in record.figures:
        return "–"
    values = record.figures[name]
    return f"{fmean(values):.3f}" if name.endswith("share") else f"{sum(values):.0f} of {len(values)}"


# --- the pages

PARTS: dict[str, Callable[[], str]] = {
    "methods": methods, "continual": continual, "refusals": refusals, "papers": papers, "pieces": pieces,
    "sizes": sizes, "options": options, "recipes": recipes,
    "sets": sets,
    "job": job, "language-job": language_job,
    "fashion": fashion,
    "probes": probes, "policies": policies, "verdicts": verdicts,
    "in-turn": in_turn, "tofu": tofu,
    "language-probes": language_probes, "language-policies": language_policies,
}  # fmt: skip


LATE = {"claims": claims}  # made from records when the documentation is built, and not kept in the page


def made(text: str, parts: Mapping[str, Callable[[], str]] = PARTS) -> str:
    """A page with those of its parts as they are now."""

    def one(found: re.Match[str]) -> str:
        name = found["name"]
        return f"{found[1]}\n{parts[name]()}\n\n{found[3]}" if name in parts else found[0]

    return PART.sub(one, text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return made(markdown, LATE)


# --- what is run

GUIDES = ("forget-a-class.md", "forget-a-person.md", "learn-new-classes.md", "write-a-method.md")
README = DOCS.parent / "README.md"
PYTHON = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:```text\n(?P<out>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
WIDTH = 120
COMMAND = re.compile(r"^```console\n\$ (?P<words>oblivio [^\n]*)\n(?P<out>[^$].*?)^```\n", re.DOTALL | re.MULTILINE)


def ran(text: str) -> str:
    """A page with its blocks of Python run in turn, and below those that say so what they printed."""
    names: dict[str, Any] = {"__name__": "guide"}

    def one(found: re.Match[str]) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(found["code"], "a block of the page", "exec"), names)  # noqa: S102 - the page's own code
        out = "" if found["out"] is None else f"```text\n{_wrapped(printed.getvalue())}```\n"
        return f"```python\n{found['code']}```\n{out}"

    return PYTHON.sub(one, text)


def called(text: str) -> str:
    """A page with the commands of those console blocks that show an output run in turn, in a folder of their own."""
    from oblivio.cli import main as command

    def one(found: re.Match[str]) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = command(shlex.split(found["words"])[1:])
        if code not in (FINISHED, REJECTED, INCONCLUSIVE):
            raise RuntimeError(f"{found['words']} ended with {code}")
        return f"```console\n$ {found['words']}\n{_wrapped(printed.getvalue())}```\n"

    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return COMMAND.sub(one, text)
        finally:
            os.chdir(before)


def _wrapped(printed: str) -> str:
    """Lines that fit on the page, without blank ones around them."""
    lines = printed.strip("\n").splitlines()
    short = [part for line in lines for part in (_cut(line) if len(line) > WIDTH else [line.rstrip()])]
    return "".join(f"{line}\n" for line in short)


def _cut(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def main() -> int:
    """Write all pages; returns the number of those that have changed."""
    changed = 0
    for path in [README, *sorted(DOCS.glob("*.md"))]:
        before = path.read_text()
        after = called(made(before)) if path == README else ran(made(before)) if path.name in GUIDES else made(before)
        if after != before:
            path.write_text(after)
            changed += 1
    return changed


if __name__ == "__main__":
    sys.stdout.write(f"{main()} pages written\n")
