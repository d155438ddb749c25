"""The process that forks a child for each trial, as the trials see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TESTS = Path(__file__).parent.parent
READY = 0
ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {
    "JE_ARROW_MALLOC_CONF": "background_thread:false"  # pyarrow's allocator, which pandas brings along
}


class Server:
    """``with Server() as server: server.run("save", folder)``."""

    def __enter__(self) -> Self:
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kills.forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **ALONE, "PYTHONPATH": path},
        )  # fmt: skip
        assert self._answer() == READY
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()

    def run(
        self, scenario: str, folder: Path, fault: tuple[int, str] | None = None, wait: tuple[int, float] | None = None,
        **settings: Any,
    ) -> int:  # fmt: skip
        """Let a child do a scenario in ``folder``, with its cache in there too; its words go to ``words``.

        Args:
            scenario: its name.
            folder: of the trial.
            fault: (number of a file operation, what happens there); see ``operations.Fault``.
            wait: (lines, seconds): the child is killed so long after its log has so many lines.
            settings: of the scenario.

        Returns:
            the exit code; negative where it was killed.
        """
        request = {"scenario": scenario, "folder": str(folder), "fault": fault, "wait": wait, "settings": settings}
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        return int(line)
