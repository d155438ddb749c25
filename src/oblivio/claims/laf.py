"""LAF: without a label a class goes; alignment holds the others, and repair of the head brings more of them back."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import CLASS, Case, class_three, nothing
from oblivio.core.plan import Cycle, Plan, Stage, edit
from oblivio.core.problem import Problem
from oblivio.methods.unlearning.features.laf import _vae


@edit
def unscaled(problem: Problem) -> None:
    """The autoencoders take features as they are."""
    for name in ("everything", "leaving"):
        net = _vae(problem, name)
        net.centre.zero_()
        net.scale.fill_(1.0)


def linear(seed: int) -> Case:
    """Class 3 goes; the features are the 64 outputs of the last hidden layer before its ReLU."""
    case = class_three(seed)
    known: dict[str, Any] = {name: case.start.source(name) for name in ("forget", "retain", "test", "kept")}
    start = Problem(case.start.model, task=case.start.task, seed=seed, features="relu2", **known)
    return Case(start, case.retrained)


def unaligned(plan: Stage) -> Stage:
    """The plan with the first player of its turns alone."""
    stages = plan.stages if isinstance(plan, Plan) else [plan]
    return Plan([Cycle(s.stages[0], rounds=s.rounds) if isinstance(s, Cycle) else s for s in stages])


def plain(plan: Stage) -> Stage:
    """The plan on features that are not brought to one scale."""
    stages = plan.stages if isinstance(plan, Plan) else [plan]
    return Plan([*stages[:1], unscaled(), *stages[1:]]) if stages else plan


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on training rows: of the class that goes, and of the others."""
    case = linear(seed)
    done, repaired, loose, raw = (
        case.after(plan) for plan in (method(), method(repair=1.0), unaligned(method()), plain(method()))
    )
    return {
        "before": case.start.score("forget"),
        "before_retain": case.start.score("retain"),
        "retrained": case.retrained.score("forget"),
        "retrained_retain": case.retrained.score("retain"),
        "laf": done.score("forget"),
        "laf_retain": done.score("retain"),
        "unaligned": loose.score("forget"),
        "unaligned_retain": loose.score("retain"),
        "repaired": repaired.score("forget"),
        "repaired_retain": repaired.score("retain"),
        "unscaled": raw.score("forget"),
        "unscaled_retain": raw.score("retain"),
    }


CLAIM = Claim(
    says="The class goes without a label. The rest keeps far more with the alignment than without it (unaligned), and "
    "gets more back when the head is repaired. On features as they are (unscaled) less is forgotten.",
    trained=CLASS,
    method=methods.laf,
    controls={"the method as a no-op": nothing},
    measure=measure,
    holds=(
        "laf <= 0.05",
        "laf_retain >= unaligned_retain + 0.3",
        "repaired_retain >= laf_retain + 0.05",
        "repaired <= 0.1",
        "unscaled > laf",
    ),
    because={
        "laf <= 0.05": "Nothing says where the features go. The first player alone takes the class away on two of "
        "three seeds (unaligned); the alignment, which holds what all rows share, keeps much of it named. The same "
        "settings end at 0 on seeds 100 and 101, and at twice the first player's rate on seed 102, where the others "
        "fall to 0.33",
        "repaired <= 0.1": "The repair leaves the class as it finds it (laf)",
        "laf_retain >= unaligned_retain + 0.3": "It is met on the seed where the alignment undoes the first player",
    },
    changed=(
        Changed("epochs", "40", "100", "an epoch is two steps of 64 rows here, and on seeds 100 and 101 some rows were "
                "left after 40"),
        Changed("fit of the autoencoders", "10 epochs", "500 steps each",
                "10 epochs over the class's 122 rows are 20 steps"),
    ),
)  # fmt: skip
