"""Tasks: one file a kind of model."""

from __future__ import annotations

import torch

from oblivio.core.errors import BadInput, nearest
from oblivio.core.problem import Problem
from oblivio.core.task import Task
from oblivio.tasks.classification import Binary, Classification, Multilabel
from oblivio.tasks.regression import Regression

TASKS: dict[str, type[Task]] = {t.name: t for t in (Classification, Binary, Multilabel, Regression)}


def resolve(task: Task | str | None, problem: Problem) -> Task:
    """A Task from its name; None: regression for floating targets, else classification (binary for one output)."""
    if isinstance(task, Task):
        return task
    if task is not None:
        if task not in TASKS:
            raise BadInput(f"there is no task {task!r}{nearest(task, TASKS)}")
        return TASKS[task]()
    source = next((s for s in problem.sources.values() if "y" in s.columns and len(s)), None)
    if source is None:
        raise BadInput("no source has targets to tell the task by; give task=")
    y = source.batch(torch.arange(1))["y"]
    if y.is_floating_point():
        return Regression()
    if y.dim() > 1:
        return Multilabel()
    with torch.no_grad(), problem.evaluating():
        out = problem.model(source.batch(torch.arange(1))["x"].to(problem.team.device))
    return Binary() if out.dim() == 1 or out.shape[1] == 1 else Classification()
