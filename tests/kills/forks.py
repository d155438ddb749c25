"""The process that forks: it has one thread and has imported all there is. ``python -m kills.forks``; see ``server``.

The only place where tests fork: a worker of the tests has threads, and a fork of it could wait for ever.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from kills import scenarios
from kills.operations import Fault, Operations
from kills.server import READY
from kills.trials import stage

LONGEST = 600.0  # seconds that a child may take
POLL = 0.001
BROKEN = 70


def serve() -> None:
    """A line of JSON asks for a child, a line answers how it ended."""
    warm_up()
    requests = os.fdopen(os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # children must not read what is meant for this process
    print(READY, flush=True)
    for line in requests:
        assert threading.active_count() == 1 == len(os.listdir("/proc/self/task")), "a fork needs a single thread"
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            work(request)
        print(watch(child, request), flush=True)
    os._exit(0)  # at once: nothing here needs an orderly end


def warm_up() -> None:
    """Do a job here: what is imported and built at its first use is there for every child."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        (Path(name) / "job.yaml").write_text(scenarios.FIRST)
        os.environ["OBLIVIO_CACHE"] = str(Path(name) / "cache")
        assert scenarios.forget(Path(name), steps=5) == 0


def work(request: dict[str, Any]) -> None:
    """What a child does in its life."""
    folder, fault = Path(request["folder"]), request["fault"]
    words = os.open(folder / "words", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(words, 1)
    os.dup2(words, 2)
    os.environ["OBLIVIO_CACHE"] = str(folder / "cache")
    operations = Operations(folder, Fault(*fault) if fault else None, str if fault else lambda: stage(folder))
    record, code = os.open(folder / "operations.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), BROKEN
    operations.install()
    try:
        code = getattr(scenarios, request["scenario"])(folder, **request["settings"])
        os.write(record, json.dumps({"seen": operations.seen, "audited": operations.audited}).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def watch(child: int, request: dict[str, Any]) -> int:
    """Wait for the child, or kill it when its time has come; the exit code, negative where it was killed."""
    lines, after = request["wait"] or (None, 0.0)
    log = Path(request["folder"]) / "out" / "log.jsonl"
    began, due = time.monotonic(), None
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        now = time.monotonic()
        if due is None and lines is not None and written(log) >= lines:
            due = now + after
        if now - began > LONGEST or (due is not None and now >= due):
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(POLL)
    return os.waitstatus_to_exitcode(ended[1])


def written(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


if __name__ == "__main__":
    serve()
