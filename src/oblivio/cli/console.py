"""Where words go: results to standard output, complaints to standard error, both from the first process only."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN = 120  # columns where there is no terminal to ask


def first(rank: str = "RANK") -> bool:
    """Whether this is the first process of all (``LOCAL_RANK``: of this machine) that share a run, or the only one."""
    return os.environ.get(rank, "0") == "0"


def out() -> Console:
    """Standard output; silent in all processes but the first."""
    return _console(sys.stdout)


def err() -> Console:
    """Standard error, likewise."""
    return _console(sys.stderr)


def _console(file: TextIO) -> Console:
    """Text is printed as it is, without markup; the width is the terminal's, or else fixed."""
    from rich.console import Console

    width = None if file.isatty() or "COLUMNS" in os.environ else PLAIN
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False, quiet=not first())


def table(*columns: str) -> Table:
    """An empty table in the style of all tables here. A column ``>x`` is set to the right; the first never wraps."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=i == 0)
    return made


def pairs(texts: Mapping[str, str]) -> Table:
    """Headings with their texts beside them; those without a text are left out."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold", no_wrap=True)
    for heading, text in texts.items():
        if text:
            made.add_row(heading, text)
    return made


def complain(message: str, code: int) -> int:
    """One line on standard error; returns ``code``."""
    if first("LOCAL_RANK"):
        print(f"oblivio: {' '.join(message.split())}", file=sys.stderr)
    return code


@contextlib.contextmanager
def brief_warnings() -> Iterator[None]:
    """Inside, a warning is one line on standard error, without the place in the code that gave it."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        complain(f"note: {message}", 0)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
