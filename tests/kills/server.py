"""A process with one thread that has imported all there is, and forks a child for each request.

The only place where tests fork: a worker of the tests has threads, and a fork of it could wait for ever.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TESTS = Path(__file__).parent.parent
LONGEST = 120.0  # seconds that a child may take
POLL = 0.001
READY = 0
ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {
    "JE_ARROW_MALLOC_CONF": "background_thread:false"  # pyarrow's allocator, which pandas brings along
}


class Server:
    """The process, as others see it. ``with Server() as server: server.run("save", folder)``."""

    def __enter__(self) -> Self:
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kills.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
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


# --- in the process


def serve() -> None:
    from kills import scenarios

    warm_up(scenarios)
    with open("/dev/null") as nothing:
        requests = os.fdopen(os.dup(0))
        os.dup2(nothing.fileno(), 0)  # children must not read what is meant for this process
    print(READY, flush=True)
    for line in requests:
        assert threading.active_count() == 1 == len(os.listdir("/proc/self/task")), "a fork needs a single thread"
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                code = work(request, scenarios)
            except BaseException:
                import traceback

                traceback.print_exc()
                code = 70
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(watch(child, request), flush=True)


def warm_up(scenarios: Any) -> None:
    """Do a job here: what is imported and built at its first use is there for every child."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        (Path(name) / "job.yaml").write_text(scenarios.FIRST)
        os.environ["OBLIVIO_CACHE"] = str(Path(name) / "cache")
        assert scenarios.forget(Path(name), steps=5) == 0


def work(request: dict[str, Any], scenarios: Any) -> int:
    from kills.operations import Fault, Operations
    from kills.trials import stage

    folder = Path(request["folder"])
    with open(folder / "words", "wb") as words:
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
    os.environ["OBLIVIO_CACHE"] = str(folder / "cache")
    fault = None if request["fault"] is None else Fault(*request["fault"])
    operations = Operations(folder, fault, (lambda: stage(folder)) if fault is None else str)
    record = os.open(folder / "operations.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    operations.install()
    code = int(getattr(scenarios, request["scenario"])(folder, **request["settings"]))
    os.write(record, json.dumps({"seen": operations.seen, "audited": operations.audited}).encode())
    return code


def watch(child: int, request: dict[str, Any]) -> int:
    """Wait for the child, or kill it when its time has come."""
    began, due = time.monotonic(), None
    lines, after = request["wait"] or (None, 0.0)
    log = Path(request["folder"]) / "out" / "log.jsonl"
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        if due is None and lines is not None and (len(log.read_text().splitlines()) if log.exists() else 0) >= lines:
            due = now + after
        if now - began > LONGEST or (due is not None and now >= due):
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(POLL)


if __name__ == "__main__":
    serve()
