"""``oblivio problems``: the standard problems, read from a table of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from oblivio.cli import console
from oblivio.problems.table import Spec, names, spec

KINDS = {"class": "whole classes", "rows": "some rows"}
GOALS = {"retrained": "like a model that never saw the rows",
         "clean": "like a model that never saw a manipulated row, found out or not"}  # fmt: skip


def problems(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="One of them, in detail.")
    ] = None,
) -> None:
    """List the standard problems, each a trained model with rows that must go; or show one of them."""
    out = console.out()
    if name is not None:
        made = spec(name)
        out.print(f"{made.name}: {made.says}", end="\n\n", soft_wrap=True)
        out.print(console.pairs(details(made)))
        return
    table = console.table("problem", "what goes", "data", "network", "goal")
    for made in map(spec, names()):
        rows = "" if made.rows is None else f", {made.rows:,} rows"
        table.add_row(made.name, made.says, made.dataset + rows, made.network, made.goal)
    out.print(table)
    out.print("oblivio problems NAME: rows, recipe, settings, cost")


def details(of: Spec) -> dict[str, str]:
    """What is known of a problem, by heading."""
    rows = "all training rows" if of.rows is None else f"the first {of.rows:,} training rows"
    return {
        "Data": f"{of.dataset}, {rows}" + (f", labels from column {of.labels}" if of.labels else ""),
        "Task": of.task,
        "Goes": KINDS[of.kind],
        "Goal": GOALS[of.goal],
        "Network": " ".join([of.network, *_worded(of.options)]),
        "Recipe": ", ".join(_worded(of.recipe)) or "the network's shipped one",
        "Settings": ", ".join(_worded(of.settings)) or "the defaults",
        "One training": "" if of.seconds is None else f"about {of.seconds:g} s on one core",
        "In Python": f'oblivio.problems.load("{of.name}", seed=0)',
    }


def _worded(settings: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items()]
