"""Online EWC: as good as EWC on permuted digits at a memory that stays; with gamma below 1 the first task fades."""

from __future__ import annotations

from torch import Tensor

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.continual import Course, course, permuted_digits
from oblivio.claims.held import HIDDEN, ON_PERMUTED, PERMUTED, alike, first, free, learned
from oblivio.core.part import walk
from oblivio.core.plan import Stage


def held_numbers(of: Course) -> int:
    """Numbers in the memories of a learner's plan."""
    states = [part.state for _, part in walk(of.learner.plan)]
    tables = [value for state in states for value in state.values() if isinstance(value, dict)]
    return sum(v.numel() for table in tables for v in table.values() if isinstance(v, Tensor))


def early(plan: Stage, seed: int, tasks: int = 2) -> Course:
    """The first tasks of the stream alone."""
    stream = permuted_digits(seed)
    return course(plan, stream, seed, hidden=HIDDEN, experiences=stream.train[:tasks])


def measure(method: Method, seed: int) -> Figures:
    """Both forms and two values of gamma after five tasks; weights and memory after two."""
    plans = {
        "naive": free(**ON_PERMUTED),
        "ewc": methods.ewc(**ON_PERMUTED),
        "online": method(**ON_PERMUTED),
        "fading": method(gamma=0.5, **ON_PERMUTED),
    }
    ends = {name: learned(plan, "permuted", seed) for name, plan in plans.items()}
    two, other = early(plans["online"], seed), early(plans["ewc"], seed)
    pairs = zip(two.learner.model.parameters(), other.learner.model.parameters(), strict=True)
    return {
        **{name: end.acc for name, end in ends.items()},
        **{f"{name}_forgetting": end.forgetting for name, end in ends.items()},
        **{f"{name}_first": first(end) for name, end in ends.items()},
        "apart_after_two": max(float((a - b).detach().abs().max()) for a, b in pairs),
        "memory_growth": held_numbers(ends["online"]) - held_numbers(two),
    }


CLAIM = Claim(
    says="Online EWC is right on more rows than plain training by 0.08 or more, at a memory that does not grow with "
    "the tasks; it is EWC to the bit through the second task, keeps the first task less well than EWC, and with gamma "
    "0.5 less well than with gamma 1.",
    trained=PERMUTED + "; SGD 0.02, batch 10, 10 epochs; lam 300 of the exact Fisher, proximal",
    method=methods.online_ewc,
    controls={"plain training": free, "every weight held alike": alike},
    measure=measure,
    holds=(
        "online >= naive + 0.08",
        "online_first <= ewc_first",
        "fading_first <= online_first",
    ),
    because={
        "fading_first <= online_first": "Two seeds of three fade (0.608 under 0.625, 0.648 under 0.652), seed 2 does "
        "not (0.667 over 0.628): the effect after five tasks, 0.02 in the card, is smaller than what one seed moves",
    },
    always=("apart_after_two <= 0", "memory_growth <= 0"),
    changed=(
        Changed("training rows", "not said", "1,200, and 597 to test", "the split that all claims on digits share"),
    ),
)
