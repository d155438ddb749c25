"""``oblivio bench speed``: all figures that have a limit, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from oblivio.bench import audits, descents, exact, footprint, learning, passes, requests
from oblivio.bench.row import Row, table
from oblivio.core.files import write_json
from oblivio.core.run import environment

BENCHES: dict[str, Callable[[], Row | list[Row]]] = {
    "fixed": descents.fixed_cost,
    **{name: partial(descents.one_source, name) for name in descents.SETS},
    "two": descents.two_sources,
    "fisher-mlp": passes.on_mlp,
    "fisher-cnn": passes.on_pooled,
    "ssd": requests.rows,
    "ridge": exact.rows,
    "audit": audits.rows,
    "learn": learning.rows,
    "import": footprint.imports,
    "memory": footprint.memory,
    "lines": footprint.lines,
}


def main(json: Path | None = None, only: tuple[str, ...] = ()) -> int:
    """Measure, print, and write to ``json``. Returns 1 where a row misses its limit, else 0.

    ``only``: some of ``BENCHES``; default: all. Random numbers are seeded, and the caller's generator is left alone.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = list(_measured(only or tuple(BENCHES)))
    if json is not None:
        write_json(json, {"rows": [row.to_json() for row in rows], **environment()})
    return 0 if all(row.passed for row in rows) else 1


def _measured(names: tuple[str, ...]) -> Iterator[Row]:
    console = Console()
    for name in names:
        with console.status(f"measuring {name}"):
            found = BENCHES[name]()
        rows = found if isinstance(found, list) else [found]
        console.print(table(rows, header=name == names[0]))
        yield from rows
