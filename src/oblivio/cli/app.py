"""All commands in one place.

The options of ``forget`` and ``learn`` depend on the method, so the program is made for its words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

import oblivio
from oblivio.cli import audit, demo, evidence, forget, learn, lookup, problems, sequence, storage
from oblivio.cli.settings import method_named
from oblivio.core.errors import BadInput

WORK, LEARN, JUDGE = "Make a model forget", "Let a model learn on and on", "Judge what came of it"
KNOW, KEEP = "See what there is", "Evidence and upkeep"


def application(words: Sequence[str] = ()) -> typer.Typer:
    """The program, with the settings of the method that ``words`` name as options of their command."""
    asked = {verb: method_named(words[1:]) if list(words[:1]) == [verb] else None for verb in ("forget", "learn")}
    app = _group(
        "Make trained models forget, and prove it beside models that never knew, or say that it is not so.", _root
    )
    _add(app, WORK, forget=forget.command(asked["forget"]), resume=forget.resume, sequence=sequence.sequence,
         init=forget.init, demo=demo.demo)  # fmt: skip
    _add(app, LEARN, learn=learn.command(asked["learn"]))
    _add(app, JUDGE, audit=audit.audit, compare=audit.compare, purge=audit.purge)
    _add(app, KNOW, methods=lookup.methods, show=lookup.show, problems=problems.problems, cite=audit.cite)
    _add(app, KEEP, tune=evidence.tune)
    claims = _group("Papers' results as small experiments that can fail.", _needs_command)
    _add(claims, None, run=evidence.run, table=evidence.table, verify=evidence.verify)
    bench = _group("How fast it is, against bare loops; methods beside each other.", _needs_command)
    _add(bench, None, speed=evidence.speed, unlearning=evidence.unlearning, continual=evidence.continual)
    cache = _group("Trained models that are kept to be used again.", _needs_command)
    _add(cache, None, list=storage.show, clear=storage.clear)
    for name, group in {"claims": claims, "bench": bench, "cache": cache}.items():
        app.add_typer(group, name=name, rich_help_panel=KEEP)
    return app


def _group(words: str, first: Callable[..., None]) -> typer.Typer:
    """Commands under one name; ``first`` is called before any of them, or alone where none is given."""
    group = typer.Typer(
        help=words, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    group.callback(invoke_without_command=True)(first)
    return group


def _add(group: typer.Typer, panel: str | None, /, **commands: Callable[..., Any]) -> None:
    for name, run in commands.items():
        group.command(name, rich_help_panel=panel)(run)


def _needs_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        raise BadInput(f"{context.info_name} needs a command; see oblivio {context.info_name} --help")


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"oblivio {oblivio.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise BadInput("a command is needed; see oblivio --help")
