"""The task's own figure: on what is to go, and on what is to stay."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from oblivio.audits.case import Case, Look
from oblivio.audits.probe import DoesNotApply, Value, of_task, probe, share

LEAST = 10  # rows of a class or group that may be called the worst
BINS = 15  # of the calibration error


@probe("gone", "on forgotten rows", "task", about="outputs")
def forget(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The task's figure on the rows to forget."""
    return of_task(case, look["forget"].quality)


@probe("gone", "on unseen rows of the same classes", "task", needs=("forget", "test"), about="outputs")
def unseen(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The task's figure on test rows of the classes that forgotten rows have."""
    if not case.labelled:
        raise DoesNotApply(f"rows of a {case.problem.task.name} have no class; see the figure on test rows")
    return of_task(case, look["test"].quality[case.unseen])


@probe("gone", "on affected rows with their true targets", "task", needs=("affected",), about="outputs")
def affected(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The task's figure where the manipulation acts, against what is true: what the goal ``clean`` is judged by."""
    return of_task(case, look["affected"].quality)


@probe("intact", "on retained rows", "task", needs=("retain",))
def retain(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The task's figure on the rows that stay."""
    return of_task(case, look["retain"].quality)


@probe("intact", "on test rows", "task", needs=("test",))
def test(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The task's figure on all test rows, those of classes that went among them."""
    return of_task(case, look["test"].quality)


@probe("intact", "on test rows that stay", "task", needs=("test",))
def kept(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The task's figure on test rows of the classes that stay; on all, where none goes."""
    return of_task(case, look["test"].quality[case.kept])


@probe("intact", "balanced over classes that stay", "share", needs=("test",))
def balanced(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The mean over classes of the accuracy on test rows of each."""
    each = torch.tensor([value.value for _, value in _by_class(case, look)])
    return Value(float(each.mean()), rows=len(case.kept))


@probe("intact", "of the worst class that stays", "share", needs=("test",))
def worst_class(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The least accuracy of a class on its test rows, of the classes with at least 10."""
    return _worst(_by_class(case, look), "class")


@probe("intact", "of the worst group", "task", needs=("test",))
def worst_group(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The task's figure on test rows of the group where it is worst, of the groups with at least 10 rows."""
    if "test" not in case.groups:
        raise DoesNotApply("test rows have no column group")
    group = case.groups["test"][case.kept]
    quality = look["test"].quality[case.kept]
    found = [(int(g), of_task(case, quality[group == g])) for g in group.unique()]
    return _worst(found, "group", higher=case.problem.task.higher)


@probe("intact", "calibration error on test rows that stay", "share", needs=("test",))
def calibration(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """Expected calibration error: mean distance of confidence and accuracy over 15 equal bins (Guo et al., 2017)."""
    task = case.problem.task
    probabilities = task.confidences(look["test"].out[case.kept])
    if probabilities is None:
        raise DoesNotApply(f"a {task.name} gives no confidences")
    if not case.labelled:
        raise DoesNotApply(f"a {task.name} has several answers a row, each with a confidence of its own")
    confidence, right = probabilities[:, 0].double(), look["test"].quality[case.kept].double()
    place = (confidence * BINS).long().clamp(max=BINS - 1)
    gap = torch.zeros(BINS, dtype=torch.double).index_add(0, place, right - confidence)
    return Value(float(gap.abs().sum() / len(right)), rows=len(right))


@probe("alike", "change of accuracy by class, test rows", "points", needs=("test",), of=("outcome", "reference"))
def by_class(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The greatest change of a class's accuracy from the original's; the curve has all classes."""
    if not case.labelled:
        raise DoesNotApply(f"rows of a {case.problem.task.name} have no class")
    y = case.targets["test"]
    change = look["test"].quality - case.original["test"].quality
    curve = [(int(c), float(change[y == c].mean())) for c in y.unique()]
    return Value(max((value for _, value in curve), key=abs), rows=len(y), curve=curve)


def _by_class(case: Case, look: Look) -> list[tuple[int, Value]]:
    if not case.labelled:
        raise DoesNotApply(f"rows of a {case.problem.task.name} have no class")
    y, quality = case.targets["test"][case.kept], look["test"].quality[case.kept]
    return [(int(c), share(quality[y == c])) for c in y.unique()]


def _worst(found: Sequence[tuple[int, Value]], what: str, *, higher: bool = True) -> Value:
    enough = [(name, value) for name, value in found if (value.rows or 0) >= LEAST]
    if not enough:
        raise DoesNotApply(f"no {what} has {LEAST} test rows")
    name, value = (min if higher else max)(enough, key=lambda pair: pair[1].value)
    return Value(value.value, value.low, value.high, value.rows, note=f"{what} {name}")
