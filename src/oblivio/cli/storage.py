"""``oblivio cache``: the trained models that are kept."""

from __future__ import annotations

from typing import Annotated

import typer

from oblivio.cli import console


def show() -> None:
    """List the kept models: key, network, size, and how long each took to train."""
    from oblivio.jobs import cache

    table = console.table("key", "network", ">megabytes", ">seconds", "state")
    entries = cache.entries()
    for entry in entries:
        seconds = "" if entry.seconds is None else f"{entry.seconds:.1f}"
        state = "unfinished" if not entry.finished else "ready" if entry.current else "of another version: not used"
        table.add_row(entry.key, entry.network, f"{entry.bytes / 1e6:.1f}", seconds, state)
    if entries:
        console.out().print(table)
    total = sum(entry.bytes for entry in entries) / 1e6
    console.out().print(f"{len(entries)} kept, {total:.1f} megabytes, in {cache.root()}")


def clear(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Only these; default: all.")] = None,
) -> None:
    """Remove kept models; those that a process is training stay."""
    from oblivio.jobs import cache

    gone = cache.clear(keys or None)
    console.out().print(f"{gone} removed, {len(cache.entries())} kept")
