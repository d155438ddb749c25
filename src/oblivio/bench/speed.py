"""``oblivio bench speed``: all figures that have a limit, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from rich.console import Console

from oblivio.bench import audits, descents, exact, footprint, learning, passes, requests
from oblivio.bench.row import Row, table
from oblivio.core.files import write_json
from oblivio.core.run import environment
from oblivio.data.extras import need

Bench: TypeAlias = "Callable[[], Row | list[Row]]"
BENCHES: dict[str, Bench] = {
    "fixed": descents.fixed_cost,
    **{name: partial(descents.one_source, name) for name in descents.SETS},
    "two": descents.two_sources,
    "fisher-mlp": passes.on_mlp,
    "fisher-cnn": passes.on_pooled,
    "ssd": requests.rows,
    "ridge": exact.rows,
    "audit": audits.rows,
    "learn": learning.rows,
    "language": lambda: _language("tiny"),
    "language-audit": lambda: _language_audit(),
    "import": footprint.imports,
    "memory": footprint.memory,
    "lines": footprint.lines,
}


def main(json: Path | None = None, only: tuple[str, ...] = (), config: str = "tiny") -> int:
    """Measure, print, and write to ``json``. Returns 1 where a row misses its limit, else 0.

    ``only``: some of ``BENCHES``; default: all. ``config``: of the bench ``language``, see there. Random numbers are
    seeded, and the caller's generator is left alone.
    """
    benches: dict[str, Bench] = {**BENCHES, "language": partial(_language, config)} if config != "tiny" else BENCHES
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = list(_measured(only or tuple(benches), benches))
    if json is not None:
        write_json(json, {"rows": [row.to_json() for row in rows], **environment()})
    return 0 if all(row.passed for row in rows) else 1


def _measured(names: tuple[str, ...], benches: Mapping[str, Bench]) -> Iterator[Row]:
    console = Console()
    for name in names:
        with console.status(f"measuring {name}"):
            found = benches[name]()
        rows = found if isinstance(found, list) else [found]
        console.print(table(rows, header=name == names[0]))
        yield from rows


def _language(config: str) -> list[Row]:
    need("transformers", "lm")
    from oblivio.bench import language

    return language.rows(config)


def _language_audit() -> list[Row]:
    need("transformers", "lm")
    from oblivio.bench import language_audit

    return language_audit.rows()
