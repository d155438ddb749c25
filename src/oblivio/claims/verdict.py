"""The verdict itself under test: what it must reject, and a model that truly never learned, which it must accept.

The models are those of ``fashion``: an original and four models retrained without the rows. Each of the four in turn
is passed off as the outcome beside the other three.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from oblivio.audits.audit import examine
from oblivio.audits.case import Case, Look, gather
from oblivio.audits.probe import known
from oblivio.audits.report import Report
from oblivio.audits.subjects import Subject, mask, noise_until
from oblivio.audits.verdict import judge
from oblivio.claims import fashion
from oblivio.claims.claim import Claim, Figures
from oblivio.jobs.job import Forget
from oblivio.jobs.recipe import shipped

SEEDS = 10
RETRAINED = 4
ACCURACIES = ("forget", "retain", "kept", "test", "unseen")
FALSE = {"original": "the untouched original", "masked": "the original, its output masked",
         "noise": "the original with noise that brings it to the references' accuracy on forgotten rows"}  # fmt: skip

Select = Callable[..., Sequence[str]]


def everything(**settings: Any) -> Sequence[str]:
    """The whole policy."""
    return ()


def accuracies(**settings: Any) -> Sequence[str]:
    """What tables of the field go by: accuracies and nothing else."""
    return ACCURACIES


def measure(method: Select, seed: int, *, request: Forget, epochs: float | None = None,
            most: int | None = None) -> Figures:  # fmt: skip
    """``judged`` on a request to forget rows of Fashion-MNIST; the last two are for a look."""
    recipe = shipped(fashion.NETWORK) if epochs is None else shipped(fashion.NETWORK).but(epochs=epochs)
    return judged(fashion.case(request, seed, fashion.rows_of(most), recipe, RETRAINED), seed, method())


def judged(of: fashion.Case, seed: int, only: Sequence[str] = ()) -> Figures:
    """1 for each false model that is rejected, else 0; whether the last fresh one is accepted; shares of all of them.

    ``only``: the figures that judge; none means the policy's own.
    """
    seen = gather(of.start, [*of.subjects(), *false(of, seed)], of.classes)
    reports = [_turn(seen, fresh, only) for fresh in range(len(of.references))]
    words = [judge(report).word for report in reports]
    last = reports[-1]
    found = {f"{each['name']}_rejected": float(_word(last, each["name"]) == "REJECTED")
             for each in last["subjects"] if each["name"] in FALSE}  # fmt: skip
    return {
        **found,
        "fresh_accepted": float(words[-1] == "ACCEPTED"),
        "fresh_rejected_share": fmean(word == "REJECTED" for word in words),
        "fresh_inconclusive_share": fmean(word == "INCONCLUSIVE" for word in words),
    }


def false(of: fashion.Case, seed: int) -> list[Subject]:
    """Models that have forgotten nothing, or only by damage, and whose accuracy may look right."""
    never = fmean(_score(of, nets) for nets in of.references)
    found = [Subject("noise", "control", noise_until(of.start, never, seed))]
    return [*found, Subject("masked", "control", mask(of.original, of.classes))] if of.classes else found


def _score(of: fashion.Case, nets: Any) -> float:
    there = of.start.copy()
    there.nets.update(nets)
    return there.score("forget")


def _turn(seen: Case, fresh: int, only: Sequence[str]) -> Report:
    """The report in which one of the retrained models is the outcome, judged by ``only`` these figures if any."""
    chosen = seen.references[fresh]

    def cast(look: Look) -> Look:
        if look is not chosen:
            return look
        return dataclasses.replace(look, subject=dataclasses.replace(look.subject, kind="outcome"))

    turned = dataclasses.replace(seen, looks=[cast(look) for look in seen.looks])
    if not only:
        return examine(turned)
    report = examine(turned, leave_out=[name for name in known() if name not in only])
    return report.but(policy=[{**rule, "about": ""} for rule in report["policy"] if rule["figure"] in only])


def _word(report: Report, name: str) -> str:
    return judge(report, name).word


def unlearning_accuracy(**settings: Any) -> Sequence[str]:
    """What the first papers went by: the accuracy on forgotten rows."""
    return ("forget",)


def claim(rows: str | dict[str, Any], trained: str, controls: Mapping[str, Select]) -> Claim:
    """The claim on one kind of request; ``controls`` are policies that must be taken in."""
    on = partial(measure, request=Forget(rows=rows))
    rejected = [f"{name}_rejected >= 1" for name in FALSE if name != "masked" or isinstance(rows, str)]
    return Claim(
        says="The policy for the goal `retrained`, with three references, rejects what has not forgotten, every time: "
        + "; ".join(FALSE[condition.partition("_")[0]] for condition in rejected)
        + ". It accepts a freshly retrained model, passed off as the outcome, at least 9 times in 10, and rejects at "
        "most a tenth of fresh ones, each of four taken in turn.",
        trained=f"fashion_mnist, {fashion.NETWORK} by its shipped recipe; {trained}",
        method=everything,
        controls=controls,
        measure=on,
        holds=("fresh_accepted >= 0.9", "fresh_rejected_share <= 0.1"),
        always=rejected,
        fast=partial(on, epochs=2, most=fashion.LOOK),
    )
