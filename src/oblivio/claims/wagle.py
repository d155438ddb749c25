"""WAGLE: a mask that knows what retained rows need keeps more of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.core.grads import top
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem, rng
from oblivio.core.where import Selection, Where
from oblivio.terms import fit
from oblivio.where import saliency

RHO, MU, STEPS, PER_EPOCH = 0.1, 0.003, 150, 3
LEVEL = 0.03  # of the forgotten answers


class drawn(Where):
    """Entries chosen at random, or by their size: masks of equal size to compare with."""

    def __init__(self, by: str, rho: float) -> None:
        self.by, self.rho = by, rho

    def prepare(self, problem: Problem) -> None:
        weights = {n: w.detach() for n, w in problem.weights("model.*").items()}
        if self.by == "random":
            weights = {n: torch.rand(w.shape, generator=rng(problem, "drawn", n)) for n, w in weights.items()}
        self.state["mask"] = top({n: w.abs() for n, w in weights.items()}, self.rho)

    def select(self, problem: Problem) -> Selection:
        return dict(self.state["mask"])


def plain(rho: float = RHO, **_: Any) -> Callable[[Stage], Stage]:
    """The plain mask by the size of the forget gradient."""
    return lambda plan: plan.but(where=saliency(fit("forget"), rho))


def host() -> Stage:
    """Gradient difference."""
    plan: Stage = methods.grad_diff(
        gamma=1.0, alpha=1.0, lr=1e-3, optimiser="adamw", batch=12, epochs=STEPS / PER_EPOCH
    )
    return plan


def measure(method: Method, seed: int) -> Figures:
    """Probabilities of retained and other facts as soon as the forgotten ones are below 0.03, under each mask."""
    mini = language.mini(seed)
    sets = {part: mini.tokens(part) for part in ("forget", "retain", "world")}
    measures = {part: language.of(tokens) for part, tokens in sets.items()}
    plans = {
        "wagle": method(rho=RHO, mu=MU)(host()),
        "gradient": plain()(host()),
        "random": host().but(where=drawn("random", RHO)),
        "magnitude": host().but(where=drawn("magnitude", RHO)),
    }
    figures = {f"retrained_{part}": language.probability(mini.retrained(), tokens) for part, tokens in sets.items()}
    for name, plan in plans.items():
        course = language.path(plan, mini.problem(), every=5, **measures)
        found = language.first(course, "forget", LEVEL)
        figures |= {f"{name}_{part}": value for part, value in found.items()}
    return figures


CLAIM = Claim(
    says="When gradient difference has made the forgotten answers unlikely, more retained and other facts are left "
    "where it moved the tenth of the weights that WAGLE chooses than where it moved that with the largest gradient.",
    trained=language.TRAINED,
    method=methods.wagle,
    controls={"the mask by the forget gradient alone": plain},
    measure=measure,
    holds=(
        "wagle_forget < 0.03",
        "wagle_retain > gradient_retain",
        "wagle_world > gradient_world",
    ),
    changed=(
        Changed(
            "level of the forgotten answers",
            "0.01",
            "0.03",
            "chosen on seed 100: there one answer of 36 stays under the plain mask, whatever the steps",
        ),
        Changed(
            "steps",
            "60",
            "150 at most",
            "chosen on seeds 100 and 101, where the level is reached after 80 and 115, under the plain mask after 60 "
            "and 100; with 90, chosen on seed 100 alone, two of the seeds 0 to 2 had not reached it",
        ),
        Changed(
            "mu",
            "0.01 in the prototype",
            "0.003",
            "chosen on seeds 100 and 101 from 0.001, 0.003, 0.01, 0.03, 0.1 and equal medians: it alone keeps more "
            "than the plain mask of both kinds of facts on both seeds; in the mean at 0.01 it is a tie",
        ),
    ),
)
