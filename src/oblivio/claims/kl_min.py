"""KL minimisation: it keeps retained answers better than ascent, not those it is not given. People who do not exist."""

from __future__ import annotations

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.ascents import ascent, beside
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.grad_ascent_text import STEPS, settings
from oblivio.claims.problems import nothing

GIVEN = settings(STEPS, alpha=1.0)


def measure(method: Method, seed: int) -> Figures:
    """Answers after the method and after ascent alone."""
    return beside("kl_min", method(**GIVEN), seed, STEPS)


CLAIM = Claim(
    says="After 60 steps forgotten answers are improbable and retained ones are not, where ascent at the same steps "
    "loses both. A retrained model has hardly lost anything.",
    trained=language.TRAINED,
    method=methods.kl_min,
    controls={"gradient ascent": ascent, "the method as a no-op": nothing},
    measure=measure,
    holds=("kl_min_forget < 0.2", "kl_min_retain > 0.7", "kl_min_retain > ascent_retain", "retrained_retain > 0.95"),
)
