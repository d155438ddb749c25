"""Tasks: one file a kind of model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from oblivio.core.errors import BadInput, nearest
from oblivio.core.problem import Problem
from oblivio.core.source import Batch, Source
from oblivio.core.task import Task
from oblivio.tasks.classification import Binary, Classification, Multilabel
from oblivio.tasks.graph import Links, Nodes
from oblivio.tasks.language import CausalLM
from oblivio.tasks.regression import Regression
from oblivio.tasks.vision_language import VisionLanguage

TASKS: dict[str, type[Task]] = {
    t.name: t for t in (Classification, Binary, Multilabel, Regression, Nodes, Links, CausalLM, VisionLanguage)
}


def resolve(task: Task | str | None, problem: Problem) -> Task:
    """A Task from its name; None: regression for floating targets, else classification (binary for one output).

    A regression is scaled by the targets that the model is to know: of retained rows, else of those of a training.
    """
    name = _told(problem) if task is None else task
    if isinstance(name, Task):
        return name
    if name not in TASKS:
        raise BadInput(f"there is no task {name!r}{nearest(name, TASKS)}")
    known = _with_targets(problem, ("retain", "train", "forget"))
    return Regression.of(known) if name == "regression" and known is not None else TASKS[name]()


def first_output(problem: Problem, source: Source, forward: Callable[[Batch], Tensor]) -> Tensor:
    """``forward`` of the first row of ``source``, in evaluation mode.

    Raises:
        BadInput: it cannot take the row; the message has the shape that was given and the model's own words.
    """
    first = source.batch(torch.arange(1))
    try:
        with torch.no_grad(), problem.evaluating():
            return forward(first)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shape, words = tuple(first["x"].shape[1:]), str(error).partition("\n")[0]
        raise BadInput(f"the model cannot take rows of x with the shape {shape}: {words}") from None


def _told(problem: Problem) -> str:
    """The name of the task, as the targets of the first rows that have some tell it."""
    source = _with_targets(problem, problem.sources)
    if source is None:
        raise BadInput("no source has targets to tell the task by; give task=")
    y = source.batch(torch.arange(1))["y"]
    if y.is_floating_point():
        return "regression"
    if y.dim() > 1:
        return "multilabel"
    out = first_output(problem, source, lambda batch: problem.model(batch["x"]))
    return "binary" if out.dim() == 1 or out.shape[1] == 1 else "classification"


def _with_targets(problem: Problem, names: Iterable[str]) -> Source | None:
    sources = (problem.sources[name] for name in names if name in problem.sources)
    return next((source for source in sources if "y" in source.columns and len(source)), None)
