"""Gradient difference on texts: it keeps what it is given, and loses what it is not. People who do not exist."""

from __future__ import annotations

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.ascents import ascent, beside
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.grad_ascent_text import settings
from oblivio.claims.problems import nothing

STEPS = 120
GIVEN = settings(STEPS, gamma=1.0, alpha=1.0)


def measure(method: Method, seed: int) -> Figures:
    """Answers after the method and after ascent alone."""
    return beside("grad_diff", method(**GIVEN), seed, STEPS)


CLAIM = Claim(
    says="After 120 steps the probability of forgotten answers is gone while that of retained ones stays, where ascent "
    "alone takes both; answers about the world, which are not among the retained data, lose more than these.",
    trained=language.TRAINED,
    method=methods.grad_diff,
    controls={"gradient ascent": ascent, "the method as a no-op": nothing},
    measure=measure,
    holds=(
        "grad_diff_forget < 0.05",
        "grad_diff_retain > 0.8",
        "grad_diff_retain > ascent_retain",
        "grad_diff_world < grad_diff_retain",
    ),
)
