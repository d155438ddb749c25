"""A model beside its original, its references and two controls: one pass for each model and source."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.core.problem import Nets, Problem
from oblivio.core.seeds import generator
from oblivio.core.source import Batch
from oblivio.modules.masked import mask_output

Means = dict[str, float]

WORDS = {
    "forget": "forget", "retain": "retain", "test": "test", "test_kept": "test, kept", "test_forgotten": "test, gone",
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A model to be evaluated: ``kind`` is outcome, original, reference or control."""

    name: str
    kind: str
    nets: Mapping[str, nn.Module]


class Figures(dict[str, Any]):
    """What ``figures`` found; it prints as a table."""

    def __str__(self) -> str:
        return table(self)


def figures(problem: Problem, subjects: Sequence[Subject], classes: Sequence[int] = ()) -> Figures:
    """The task's figure of every subject on every set of rows, as JSON can hold it.

    Args:
        problem: gives task and sources; its passes are not counted.
        subjects: the models.
        classes: the classes that go; then test rows of these and of the kept ones are told apart.

    Returns:
        ``figure`` and ``higher`` (which way is better), ``columns``, ``rows`` (name, kind, and under ``means`` one
        number a column), and ``references`` (their number, and mean and spread, the standard deviation, a column).
    """
    found = [means(problem, subject.nets, classes) for subject in subjects]
    rows = [{"name": s.name, "kind": s.kind, "means": m} for s, m in zip(subjects, found, strict=True)]
    columns = list(found[0]) if found else []
    references = [m for s, m in zip(subjects, found, strict=True) if s.kind == "reference"]
    return Figures(
        figure=problem.task.figure,
        higher=problem.task.higher,
        columns=columns,
        rows=rows,
        references=summary(references, columns),
    )


def means(problem: Problem, nets: Mapping[str, nn.Module], classes: Sequence[int] = ()) -> Means:
    """The mean figure on forget, retain and test, in one pass over each that the problem has with labels."""
    at = copy.copy(problem)
    at.nets, at.passes = Nets(nets).to(problem.team.device), {}
    found: Means = {}
    for name in ("forget", "retain", "test"):
        source = problem.sources.get(name)
        if source is not None and len(source) and "y" in source.columns:
            quality, gone = _qualities(at, name, classes if name == "test" else ())
            halves = {"test_kept": quality[~gone], "test_forgotten": quality[gone]}
            found |= _mean(halves if name == "test" and classes else {name: quality})
    return found


def _mean(values: Mapping[str, Tensor]) -> Means:
    return {name: float(each.double().mean()) for name, each in values.items() if len(each)}


def _qualities(problem: Problem, on: str, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """For every row its figure, and whether its label is one of ``classes``; both of shape (rows,)."""
    asked = torch.tensor(list(classes), device=problem.team.device)

    def both(nets: Nets, batch: Batch) -> Tensor:
        quality = problem.task.quality(problem.served(nets, batch), batch).float()
        inside = torch.isin(batch["y"], asked) if classes else torch.zeros(len(batch), device=quality.device)
        return torch.stack([quality, inside.flatten().float()], 1)

    with torch.no_grad():
        values = problem.tabulate(on, both).cpu()
    return values[:, 0], values[:, 1].bool()


def summary(references: Sequence[Means], columns: Sequence[str]) -> dict[str, Any] | None:
    """Mean and standard deviation of each column over the references; None without any, spread 0 of one alone."""
    if not references:
        return None
    values = {c: [r[c] for r in references] for c in columns}
    return {
        "number": len(references),
        "mean": {c: statistics.fmean(v) for c, v in values.items()},
        "spread": {c: statistics.stdev(v) if len(v) > 1 else 0.0 for c, v in values.items()},
    }


# --- controls


def controls(
    original: Mapping[str, nn.Module], outcome: Mapping[str, nn.Module], classes: Sequence[int], seed: int
) -> list[Subject]:
    """What any method must be told from: hiding the classes that go, and noise as large as the method's own change."""
    masked = [Subject("output masked", "control", mask(original, classes))] if classes else []
    return [*masked, Subject("weight noise", "control", noise(original, outcome, seed))]


def mask(original: Mapping[str, nn.Module], classes: Sequence[int]) -> Mapping[str, nn.Module]:
    """The original with the outputs of ``classes`` hidden; its weights are shared, not copied."""
    nets: dict[str, nn.Module] = dict(original)
    mask_output(nets, classes=list(classes))
    return nets


def noise(original: Mapping[str, nn.Module], outcome: Mapping[str, nn.Module], seed: int) -> Mapping[str, nn.Module]:
    """The original, each weight tensor moved in a random direction as far as the method moved it."""
    model = copy.deepcopy(original["model"])
    moved = dict(outcome["model"].named_parameters())
    draws = generator(seed, "weight noise")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in moved and moved[name].shape == weight.shape:
                step = torch.randn(weight.shape, generator=draws).to(weight)
                far = (moved[name] - weight).norm() / step.norm().clamp_min(1e-12)
                weight.add_(step * far)
    return {**original, "model": model}


# --- text


def table(found: Mapping[str, Any]) -> str:
    """Figures as readable text: a line for each model, and what the references agree on."""
    columns: list[str] = found["columns"]
    percent = found["figure"].endswith("accuracy")
    lines = [[row["name"], *(_number(row["means"].get(c), percent) for c in columns)] for row in found["rows"]]
    if found["references"] is not None:
        mean, spread = found["references"]["mean"], found["references"]["spread"]
        each = [f"{_number(mean[c], percent)} ± {_number(spread[c], percent)}" for c in columns]
        lines.append([f"{found['references']['number']} retrained", *each])
    title = f"{found['figure']}{', %' if percent else ''}"
    return aligned([[title, *(WORDS.get(c, c) for c in columns)], *lines])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of words in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(w.rjust(n) for w, n in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if percent else f"{value:.4g}"
