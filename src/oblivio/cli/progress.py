"""One line of progress with the time left, on a terminal, for whatever takes longer than two seconds."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from oblivio.cli import console

if TYPE_CHECKING:
    from rich.progress import Progress

    from oblivio.core.plan import Stage
    from oblivio.core.run import Run
    from oblivio.core.step import Step

PATIENCE = 2.0  # seconds before anything is shown
EVERY = 0.2  # seconds between two looks at a run


class Line:
    """While it is entered, a line on standard error says what is done, how far it is and how long it will take.

    Not on a terminal, and in all processes but the first, nothing is shown.
    """

    def __init__(self, words: str = "getting ready") -> None:
        err = console.err()
        self.shown = console.first() and err.is_interactive and err.file.isatty()
        self._bar = _bar() if self.shown else None
        self._of = ("", "")
        self.show(words)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._timer = threading.Timer(PATIENCE, self._bar.start)
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._timer.cancel()
            self._timer.join()
            self._bar.stop()

    def show(self, words: str, done: float = 0, total: float | None = None, *, part: str = "", note: str = "") -> None:
        """Set the line. The time left is estimated from what was done since ``words`` or ``part`` last changed."""
        if self._bar is None:
            return
        if (words, part) != self._of:
            self._of = words, part
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(words, total=None, note="")
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, note=note)


class Look:
    """A ``watch`` that shows on a line how far runs are.

    Between two looks a step costs one reading of the clock; the loss is fetched from the device at a look, never else.

    Args:
        line: where.
        label: what a run does, in words.
    """

    def __init__(self, line: Line, label: Callable[[Run], str]) -> None:
        self._line, self._label = line, label
        self._due = 0.0 if line.shown else math.inf

    def __call__(self, run: Run, stage: Stage, step: Step) -> None:
        """After a step."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + EVERY
            loss = "" if step.loss is None else f"loss {float(step.loss):.3g}"
            self._line.show(self._label(run), step.t + 1, step.end, part=step.place, note=loss)


def _bar() -> Progress:
    from rich import progress
    from rich.table import Column

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        progress.BarColumn(20),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
        console=console.err(),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        refresh_per_second=4,
    )
