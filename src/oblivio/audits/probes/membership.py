"""Membership inference: whether forgotten rows look like rows that the model was trained on, beside unseen rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from oblivio.audits import auc
from oblivio.audits.case import Case, Look
from oblivio.audits.probe import DoesNotApply, Value, needs_references, probe, share
from oblivio.core.seeds import generator

CLIP = 1000.0  # of margins and scores: beyond it lie hidden outputs, whose size is no evidence
FLOOR = 1e-12  # of confidences
GREATEST = 10  # confidences of a row, at most, that a classifier is given; Salem et al. (2019) take three
FITTED = 4000  # rows of each kind, at most, that a classifier is fitted to
LEAST = 20  # rows of each kind, at least
ALARMS = 100  # unseen rows for each of them that may be taken for a member
TAIL = 300  # rows on each side, below which that share hangs on two unseen rows or fewer


@probe("gone", "membership by loss, AUC", "auc", needs=("forget", "test"), about="outputs")
def mia_loss(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """AUC of the score, forgotten against unseen rows of the same class, averaged over classes (Yeom et al., 2018)."""
    return _by_class(case, look["forget"].score, look["test"].score)


@probe("gone", "membership by confidences, AUC", "auc", needs=("forget", "retain", "test"), about="outputs")
def mia_confidence(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The same AUC, of a classifier that was shown rows that the model was trained on (after Shokri et al., 2017).

    A logistic regression on the logarithms of the greatest confidences and on the score is fitted to retained rows
    against test rows of the classes that stay. Each half of the test rows is scored by one that was fitted to the other
    half, and so is each half of the forgotten rows: forgotten and unseen rows are scored alike.
    """
    draws = generator(case.problem.seed, "mia_confidence")
    members = torch.randperm(len(case.targets["retain"]), generator=draws)[:FITTED]
    strangers = case.kept[torch.randperm(len(case.kept), generator=draws)]
    halves = {on: torch.randperm(len(case.targets[on]), generator=draws) % 2 for on in ("forget", "test")}
    inputs = {on: _inputs(case, look, on) for on in halves}
    known, half = _inputs(case, look, "retain", members), halves["test"][strangers]
    zero, one = (_classifier(known, inputs["test"][strangers[half != own]]) for own in (0, 1))
    forgotten, unseen = (torch.where(halves[on] == 0, zero(rows), one(rows)) for on, rows in inputs.items())
    return _by_class(case, forgotten, unseen)


@probe("gone", "membership against references, AUC", "auc", needs=("forget", "test"), about="outputs")
def mia_lira(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """AUC of the margin less its mean over the references, averaged over classes: LiRA (Carlini et al., 2022), offline.

    LiRA also divides by a deviation. With fewer references than some tens it takes one for all rows, since that of a
    single row is then mostly noise; one deviation for all changes no rank, so here there is none.
    """
    return _by_class(case, relative(look, others, "forget"), relative(look, others, "test"))


@probe("gone", "membership against references, TPR at 1% FPR", "share", needs=("forget", "test"), about="outputs")
def mia_lira_tpr(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The share of forgotten rows above all but 1% of the unseen rows of their classes, the classes put together."""
    strata = classes(case)
    gone, beside = torch.cat([gone for _, gone, _ in strata]), torch.cat([beside for *_, beside in strata])
    if min(len(gone), len(beside)) < TAIL:
        raise DoesNotApply(
            f"it needs {TAIL} rows on each side; there are {len(gone)} forgotten and {len(beside)} unseen"
        )
    ours, theirs = relative(look, others, "forget")[gone], relative(look, others, "test")[beside]
    less, _ = auc.counts(ours, theirs)
    return share(((len(theirs) - less) * ALARMS <= len(theirs)).float())


def relative(look: Look, others: Sequence[Look], on: str) -> Tensor:
    """Every row's margin less its mean over the references, shape (n,)."""
    margins = [each[on].margin.double().clamp(-CLIP, CLIP) for each in (look, *needs_references(others))]
    return margins[0] - torch.stack(margins[1:]).mean(0)


def classes(case: Case) -> list[tuple[float, Tensor, Tensor]]:
    """What ``Case.strata`` gives; DoesNotApply where it gives nothing."""
    found = list(case.strata())
    if not found:
        raise DoesNotApply("no class of the forgotten rows has an unseen row")
    return found


def _by_class(case: Case, forgotten: Tensor, unseen: Tensor) -> Value:
    return auc.stratified((weight, forgotten[gone], unseen[beside]) for weight, gone, beside in classes(case))


def _inputs(case: Case, look: Look, on: str, rows: Tensor | slice = slice(None)) -> Tensor:
    """What the classifier is given of these rows: logarithms of the confidences, and the score; shape (n, k + 1)."""
    task, seen = case.problem.task, look[on]
    confidences = task.confidences(seen.out[rows])
    if confidences is None:
        raise DoesNotApply(f"a {task.name} gives no confidences")
    logs = confidences[:, :GREATEST].clamp_min(FLOOR).log()
    return torch.cat([logs, seen.score[rows].clamp(-CLIP, CLIP)[:, None]], 1).double()


def _classifier(members: Tensor, strangers: Tensor) -> Callable[[Tensor], Tensor]:
    """The log odds that a row is a member, by a logistic regression on equal numbers of both kinds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = min(FITTED, len(members), len(strangers))
    if n < LEAST:
        raise DoesNotApply(
            f"a classifier needs {LEAST} retained rows, and twice as many test rows of classes that stay"
        )
    fitted = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    fitted.fit(torch.cat([members[:n], strangers[:n]]).numpy(), torch.arange(2 * n).numpy() < n)
    return lambda rows: torch.from_numpy(fitted.decision_function(rows.numpy()))
