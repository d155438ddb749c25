"""``oblivio methods`` and ``oblivio show``: what there is, read from source text and records alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from oblivio.cli import console, learn, records
from oblivio.cli.forget import OPTIONS
from oblivio.cli.settings import keywords, shape
from oblivio.core.errors import BadInput, nearest
from oblivio.learners import registry as learners
from oblivio.methods import registry
from oblivio.registry import Spec

if TYPE_CHECKING:
    from rich.table import Table

KINDS = {
    "image": {"classification", "binary", "multilabel"},
    "tabular": {"classification", "binary", "multilabel", "regression"},
    "graph": {"graph", "links"},
    "texts": {"causal_lm"},
}
GROUPS = {
    "unlearning": "method",
    "continual": "continual method",
    "piece": "piece (--with)",
    "protection": "protection",
    "learner": "learner",
}
REQUESTS = {"class": "whole classes", "rows": "some rows", "clean": "manipulated rows"}
FIELD = re.compile(r"^([A-Z][a-z ]*): ")


def methods(
    kind: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="KIND",
            help="Only those for images, tables, graphs or texts (image, tabular, graph, texts), for a task, such as "
            "classification or causal_lm, or for a kind of request (class, rows, clean).",
        ),
    ] = None,
) -> None:
    """List the methods: what each needs and serves, whether its claims hold, and its paper."""
    suiting = _suiting(specs(), kind)
    out = console.out()
    for group, heading in GROUPS.items():
        if of := [spec for spec in suiting if spec.kind == group]:
            out.print(_listed(heading, of))
    out.print("oblivio show NAME: equation, settings, cost, and where it fails")


def specs() -> list[Spec]:
    """Methods and learners, by name."""
    return [of.spec(name) for of in (registry, learners) for name in of.names]


def names() -> list[str]:
    """Of methods and learners."""
    return [*registry.names, *learners.names]


def spec_of(name: str) -> Spec:
    """The method or learner of this name. Raises BadInput with the nearest method."""
    return learners.spec(name) if name in learners.names else registry.spec(name)


def _listed(heading: str, of: list[Spec]) -> Table:
    table = console.table(heading, "needs", "serves", "claims", "paper")
    for spec in of:
        verdict = records.verdict(spec.id, names())
        serves = spec.scenarios if spec.kind == "continual" else spec.serves
        table.add_row(spec.id, needs(spec), ", ".join(serves), verdict, brief(spec.paper))
    return table


def _suiting(specs: list[Spec], kind: str | None) -> list[Spec]:
    tasks = {task for spec in specs for task in spec.tasks}
    if kind is None:
        return specs
    if kind in REQUESTS:
        return [spec for spec in specs if kind in spec.serves]
    if kind not in KINDS and kind not in tasks:
        raise BadInput(f"--for: no method is for {kind!r}{nearest(kind, [*KINDS, *REQUESTS, *tasks])}")
    return [spec for spec in specs if KINDS.get(kind, {kind}) & set(spec.tasks)]


def needs(spec: Spec) -> str:
    """``("forget", "retain|importance")`` as ``forget, retain or importance``."""
    return ", ".join(spec.needs).replace("|", " or ")


def brief(paper: str) -> str:
    """Who and where, of ``who, title, where``.

    >>> brief("Fan et al., SalUn: Saliency, ICLR 2024"), brief("no paper: the obvious baseline")
    ('Fan et al., ICLR 2024', 'no paper')
    """
    first, *_, last = [part.partition(":")[0].partition(" (")[0] for part in paper.split(", ")] * 2
    return first if first == last else f"{first}, {last}"


# --- one method


def show(method: Annotated[str, typer.Argument(metavar="METHOD", help="A name from `oblivio methods`.")]) -> None:
    """Show a method's card: equation, settings, needs, cost, where it fails, paper, an example, its claims."""
    from rich.text import Text

    spec = spec_of(method.replace("-", "_"))
    out = console.out()
    out.print(Text.assemble((spec.id, "bold"), f": {spec.summary}"), end="\n\n")
    out.print(console.pairs({**card(spec), **records.lines(spec.id, names())}))
    if spec.settings:
        out.print(_settings(spec))
    out.print("Example:", style="bold")
    out.print(f"  {example(spec)}", soft_wrap=True)


def card(spec: Spec) -> dict[str, str]:
    """What the method's docstring and decorator say, by heading."""
    requests = " or ".join(REQUESTS[kind] for kind in spec.serves)
    served = {"Serves": f"{requests} only: {spec.refusal}" if spec.refusal else requests}
    return {
        **fields(spec.doc),
        **({"Scenarios": ", ".join(spec.scenarios)} if spec.kind == "continual" else served),
        "Tasks": ", ".join(spec.tasks),
        "Cost": spec.cost,
        "Guarantee": spec.guarantee,
        "Paper": spec.paper,
        "Also called": ", ".join(spec.aliases),
    }


def fields(doc: str) -> dict[str, str]:
    r"""``Equation: ...``, ``Needs: ...`` of a docstring, each with the lines that go on with it.

    >>> fields("Summary.\n\nEquation: min a\n  + b.\nNeeds: rows.")
    {'Equation': 'min a + b.', 'Needs': 'rows.'}
    """
    found: dict[str, str] = {}
    for line in doc.splitlines()[1:]:
        if heading := FIELD.match(line):
            found[heading[1]] = line[heading.end() :].strip()
        elif found and line.strip():
            found[list(found)[-1]] += " " + line.strip()
    return {heading: text.replace("``", "") for heading, text in found.items()}


def example(spec: Spec) -> str:
    """A command that runs as it stands; of what no command runs, Python."""
    if spec.kind == "learner":
        model = "None" if spec.guarantee == "certified" else "model"
        return f'learner = oblivio.learner({model}, "{spec.id}")'
    if spec.kind == "protection":
        return f'outcome = oblivio.protect(oblivio.Problem(model, retain=rows), "{spec.id}")'
    if spec.kind == "continual":
        return f"oblivio learn --stream split-digits --scenario {spec.scenarios[0]} --method {spec.id}"
    if spec.kind == "piece" and spec.needs == ("new",):
        return f"oblivio learn --stream split-digits --scenario {spec.scenarios[0]} --method er --with {spec.id}"
    if set(spec.tasks) == {"vision_language"} or "decoupled" in spec.needs:
        return f"outcome = oblivio.forget(problem, {words(spec)})"
    if set(spec.tasks) <= {"causal_lm", "vision_language"}:
        how = f"npo --with {spec.id}" if spec.kind == "piece" else spec.id
        network = "mixtral" if spec.experts else "llama"
        return f"oblivio forget --data people --model {network} --method {how} --references 3 --out runs/{spec.id}"
    if not KINDS["tabular"] & set(spec.tasks):
        return f"oblivio bench unlearning --problem cora-nodes --method {spec.id}"
    if "proxy" in spec.needs:
        return f"oblivio bench unlearning --problem digits-class --method {spec.id}"
    rows = "class=3" if "class" in spec.serves else "random=0.05"
    how = f"finetune --with {spec.id}" if spec.kind == "piece" else spec.id
    return f"oblivio forget --data digits --model mlp --forget {rows} --method {how} --out runs/{spec.id}"


def words(spec: Spec) -> str:
    """The method, or the piece on a method, as arguments."""
    return f'"npo", pieces=["{spec.id}"]' if spec.kind == "piece" else f'"{spec.id}"'


def _settings(spec: Spec) -> Table:
    texts = ("on texts",) if spec.text else ()
    table = console.table("setting", "option", "type", "allowed", ">default", *(f">{words}" for words in texts))
    taken = learn.OPTIONS if spec.kind == "continual" else OPTIONS
    for name, keyword in keywords(spec, taken).items():
        of, default = shape(spec.settings[name]), spec.settings[name].default
        other = (str(spec.text.get(name, default)),) if spec.text else ()
        table.add_row(name, "--" + keyword.replace("_", "-"), of.type, of.allowed, str(default), *other)
    return table
