"""SCRUB: a class and memorised labels go, and the repairing epochs alone do not do that."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.bad_teacher import ascent
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import class_three, memorised, nothing
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.terms import distill, fit


def repairing(**settings: Any) -> Stage:
    """SCRUB without its steps away."""
    return Descent(0.001 * distill("retain") + 0.99 * fit("retain"), opt=adam(1e-3), epochs=5)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on training rows of the class that goes and on test rows of the others; on wrong labels, and the rest.

    Gradient ascent is stopped where the forgotten rows are at the accuracy that SCRUB ends at, and its rates are those
    of its own claims.
    """
    case, rows = class_three(seed), memorised(seed)
    done, told, repaired = case.after(method()), rows.after(method()), rows.after(repairing())
    gone, wrong = done.score("forget"), told.score("forget")
    return {
        "before_others": case.start.score("kept"),
        "retrained": case.retrained.score("forget"),
        "retrained_others": case.retrained.score("kept"),
        "scrub": gone,
        "scrub_others": done.score("kept"),
        "repaired": case.after(repairing()).score("forget"),
        "hot": case.after(method(temperature=4.0)).score("forget"),
        "ascent_others": ascent(case, gone, "kept", 0.01),
        "wrong_before": rows.start.score("forget"),
        "wrong_retrained": rows.retrained.score("forget"),
        "wrong": wrong,
        "wrong_repaired": repaired.score("forget"),
        "wrong_retain": told.score("retain"),
        "wrong_ascent_retain": ascent(rows, wrong, "retain", 0.005),
        "wrong_test_before": rows.start.score("test"),
        "wrong_test_retrained": rows.retrained.score("test"),
        "wrong_test": told.score("test"),
    }


CLAIM = Claim(
    says="At its defaults the class is gone and the others stay; memorised wrong labels go near to where a retrained "
    "model has them, without harm to the rest. Gradient ascent that has forgotten as much harms the rest more, and the "
    "repairing epochs alone (wrong_repaired) forget less. Also shown: the class at a temperature of 4 (hot).",
    trained="digits; class 3 goes, or the tenth of the labels that are wrong and were memorised",
    method=methods.scrub,
    controls={"the repairing epochs alone": repairing, "the method as a no-op": nothing},
    measure=measure,
    holds=(
        "scrub <= 0.02",
        "scrub_others >= before_others - 0.02",
        "scrub_others > ascent_others",
        "wrong <= wrong_retrained + 0.2",
        "wrong <= wrong_repaired - 0.1",
        "wrong_retain >= 0.99",
        "wrong_retain > wrong_ascent_retain",
        "wrong_test >= wrong_test_before",
    ),
    because={
        "wrong <= wrong_repaired - 0.1": "The repairing epochs alone, by Adam at this rate, leave hardly more than "
        "0.1 of the wrong labels, so 0.1 less is next to none at all; SCRUB leaves less than half of that. Of a class "
        "they leave nearly all (repaired), and SCRUB nothing",
    },
    changed=(
        Changed("the whole check", "none: the method has no card",
                "the paper's claims (a class or confused labels go, the rest as before), against gradient ascent and "
                "the second half of the method", "fixed after runs on seed 100 alone"),
        Changed("temperature and msteps", "4 and 2, as in the official code", "1 and 3",
                "chosen on seeds 100 to 103, after the class had stayed at 4 on seeds 0 and 1 (hot): where the model "
                "is sure, a softened KL also rises when it grows surer"),
    ),
)  # fmt: skip
