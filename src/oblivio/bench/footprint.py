"""What the package weighs: its import, its peak memory, its lines."""

from __future__ import annotations

import ast
import copy
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from oblivio import methods, networks
from oblivio.bench.memory import peak
from oblivio.bench.row import Row
from oblivio.bench.timing import REPEATS, by_turns, ratios
from oblivio.core.problem import Problem
from oblivio.core.run import Run

ROOT = Path(methods.__file__).parent.parent
TOUCH = "import oblivio; oblivio.forget"


def imports(repeats: int = REPEATS) -> Row:
    """A new interpreter that imports the package and touches a verb, against one that imports torch."""
    work = {"ours": lambda: _python(TOUCH), "torch": lambda: _python("import torch")}
    times = by_turns(work, repeats, 2, _of_children)
    note = f"processor seconds of new interpreters; import torch takes {min(times['torch']):.2f}"
    return Row("import oblivio and oblivio.forget, over import torch", 1.3, ratios(times["ours"], times["torch"]), note)


def memory(width: int = 2048, depth: int = 13) -> Row:
    """``npo`` with a retain term and cached outputs of the start, against a plain loop of fine-tuning."""
    model = networks.build("mlp", (64,), 10, hidden=(width,) * depth)
    x, y = torch.randn(192, 64), torch.arange(192) % 10
    problem = Problem(copy.deepcopy(model), task="classification", forget=(x[:64], y[:64]), retain=(x[64:], y[64:]))
    run = Run(methods.npo(epochs=3), problem)
    ours = peak(run.go, problem.model.parameters())
    bare = peak(lambda: _finetune(model, x, y), model.parameters())
    size = f"{sum(w.numel() for w in model.parameters()) / 1e6:.0f} M weights, {bare / 2**20:,.0f} MiB"
    note = f"npo with a retain term, over a plain loop with the same optimiser ({size}); storages counted as they live"
    return Row("peak of live tensor bytes, over plain fine-tuning", 1.25, [ours / bare], note)


def lines() -> list[Row]:
    """Lines of the core, and of a method's file without its docstrings."""
    core = sum(len(path.read_text().splitlines()) for path in (ROOT / "core").rglob("*.py"))
    files = {p.stem: p for p in sorted((ROOT / "methods").rglob("*.py")) if p.stem in methods.names}
    counts = {name: without_docstrings(path.read_text()) for name, path in files.items()}
    longest = max(counts, key=lambda name: counts[name])
    note = f"median of {len(counts)} files, without docstrings; the longest is {longest} with {counts[longest]}"
    return [
        Row("lines of core", 1300, [core], "all lines of src/oblivio/core", "lines"),
        Row("lines of a method's file", 30, [statistics.median(counts.values())], note, "lines"),
    ]


def without_docstrings(text: str) -> int:
    """Lines of a module that belong to no docstring."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [n for n in ast.walk(ast.parse(text)) if isinstance(n, kinds) and ast.get_docstring(n) is not None]
    return len(text.splitlines()) - sum((n.body[0].end_lineno or 0) - n.body[0].lineno + 1 for n in documented)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def _finetune(model: nn.Module, x: torch.Tensor, y: torch.Tensor, rate: float = 0.01) -> None:
    opt = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, fused=True)
    for _ in range(3):
        opt.zero_grad()
        F.cross_entropy(model(x[:64]), y[:64]).backward()
        opt.step()
