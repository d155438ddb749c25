"""Whether the recipe of the references makes models like the original: if not, they are no standard to judge it by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.audits.bands import band
from oblivio.audits.probe import Z
from oblivio.audits.seen import look
from oblivio.audits.subjects import Subject
from oblivio.core.problem import Problem
from oblivio.data.columns import column

DIVERGENCE, FIGURE = 0.005, 0.01  # least half widths; of errors, the second is a share of them


def reproduced(problem: Problem, control: nn.Module, references: Sequence[Subject],
               classes: Sequence[int] = ()) -> dict[str, Any]:  # fmt: skip
    """Compare the original with a control: a model trained on all rows by the recipe of the references.

    Two models of one recipe differ by chance. How much, the references show: they are such models, on nearly the same
    rows. The original and the control may differ by no more than one more pair of them would, in outputs (the task's
    divergence) and in the task's figure, on test rows of the classes that all of them know.

    Args:
        problem: the request, on the original.
        control: trained on all rows, forgotten and retained.
        references: two or more.
        classes: those that go.

    Returns:
        ``same``, ``why`` (a sentence), and for each of the two measures ``value`` and ``high``. Without test rows
        nothing is known of the recipe, and ``same`` is False.
    """
    if "test" not in problem.sources:
        return {"same": False, "why": "without test rows it is not known whether the recipe reproduces the original"}
    original = Subject("original", "original", dict(problem.nets.items()))
    made = Subject("control", "control", {**original.nets, "model": control})
    kept = _kept(problem, classes)
    outs = [_outputs(problem, subject, kept) for subject in (original, made, *references)]
    mine, theirs = _apart(problem, *outs[:2]), [_apart(problem, a, b) for a, b in itertools.combinations(outs[2:], 2)]
    tolerance = {"divergence": DIVERGENCE, "figure": max(FIGURE, _noise(problem, outs[0][1], len(kept)))}
    found: dict[str, Any] = {}
    for name, value in mine.items():
        spread = [pair[name] for pair in theirs]
        limit = band(spread, tolerance[name]).high if len(spread) > 1 else spread[0] + 5 * tolerance[name]
        found[name] = {"value": value, "high": limit}
    wrong = [name for name, each in found.items() if each["value"] > each["high"]]
    return {"same": not wrong, "why": _why(wrong, found), **found}


def _outputs(problem: Problem, subject: Subject, kept: Tensor) -> tuple[Tensor, float]:
    """Outputs on the kept test rows, and the mean of the task's figure, in one pass."""
    seen = look(problem, subject, "test", kept[:0], layers=False)
    return seen.out[kept], float(seen.quality[kept].double().mean())


def _apart(problem: Problem, one: tuple[Tensor, float], other: tuple[Tensor, float]) -> dict[str, float]:
    scale = 1.0 if problem.task.higher else max(abs(one[1]), abs(other[1]), 1e-12)
    return {
        "divergence": float(problem.task.divergence(one[0], other[0]).double().mean()),
        "figure": abs(one[1] - other[1]) / scale,
    }


def _noise(problem: Problem, share: float, rows: int) -> float:
    """How far an accuracy is off by the choice of so many rows alone; errors have no such bound."""
    return Z * math.sqrt(max(share * (1 - share), 0) / rows) if problem.task.higher else 0.0


def _kept(problem: Problem, classes: Sequence[int]) -> Tensor:
    source = problem.source("test")
    if not classes:
        return torch.arange(len(source))
    y = torch.as_tensor(column(source, "y")).flatten()
    return (~torch.isin(y, torch.tensor(list(classes)))).nonzero().flatten()


def _why(wrong: Sequence[str], found: dict[str, Any]) -> str:
    if not wrong:
        return (
            "the recipe reproduces the original: a model trained by it on all rows differs from the original no more "
            "than such models differ from each other"
        )
    words = {"divergence": "outputs on test rows", "figure": "the figure on test rows"}
    each = [f"{words[w]} ({found[w]['value']:.3f}, where two such models differ by up to {found[w]['high']:.3f})"
            for w in wrong]  # fmt: skip
    return (
        "the recipe does not reproduce the original, so the references are no standard for it: a model trained by it "
        f"on all rows differs from the original in {' and '.join(each)}; give the recipe that it was trained by"
    )
