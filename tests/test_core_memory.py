"""A set larger than the memory a job may have: rows are read from a memory map as they are needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROWS, COLUMNS = 300_000, 500  # 600 MB of float32, in a file that takes no room
BUDGET = 150  # MB that the job may have beyond what importing it takes

JOB = """
import re, resource, sys
import numpy as np, torch
from torch import nn
from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.importance import fisher
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.sources import as_source

path, rows, columns, budget = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(1)
used = int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + budget * 2**20,) * 2)
x = np.memmap(path, np.float32, "r", shape=(rows, columns))
try:
    np.array(x)
    raise SystemExit("the set fits the budget, so this proves nothing")
except MemoryError:
    pass
source = as_source((x, torch.arange(rows) % 3))
forget, retain = (source.take(torch.arange(a, b)) for a, b in ((0, 1000), (1000, rows)))
problem = Problem(nn.Linear(columns, 3), forget=forget, retain=retain)
Run(Descent(terms.fit("retain") + terms.npo("forget"), over="retain", epochs=0.1, batch=256), problem).go()
importance = fisher(problem, retain.take(torch.arange(0, rows - 1000, 100)))
print(problem.passes["retain"], float(importance["model.weight"].sum()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to measure and limit memory")
def test_a_memory_mapped_set_larger_than_the_budget(tmp_path: Path) -> None:
    file = tmp_path / "rows.f32"
    with open(file, "wb") as handle:
        handle.truncate(ROWS * COLUMNS * 4)
    head = np.memmap(file, np.float32, "r+", shape=(ROWS, COLUMNS))
    head[::1000] = 1.0
    head.flush()
    arguments = [str(file), str(ROWS), str(COLUMNS), str(BUDGET)]
    done = subprocess.run([sys.executable, "-c", JOB, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    passes, importance = done.stdout.split()
    assert int(passes) == 117 * 256 + 2990
    assert float(importance) > 0
