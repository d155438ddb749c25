"""Smooth unlearning: a flat forget loss makes it harder to learn forgotten facts again from some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.grad_ascent_text import settings
from oblivio.claims.language import Mini
from oblivio.claims.problems import unstopped
from oblivio.core.descent import Descent
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.how import clip
from oblivio.tasks.language import CausalLM
from oblivio.terms import fit

STEPS, ATTACK = 100, 30
THIRDS = 3  # the attacker has 12 of 36 facts: each third of them in turn
VARIANTS: dict[str, dict[str, Any]] = {
    "rho_01": {"rho": 0.1}, **{smoother: {"smoother": smoother} for smoother in ("rs", "gp", "cr", "wa")},
}  # fmt: skip


def host() -> Stage:
    """NPO with a retain term, clipped, as everything on the testbed."""
    return unstopped(methods.npo(beta=1.0, **settings(STEPS))).but(how=clip(1.0))


def unchanged(**given: Any) -> Callable[[Stage], Stage]:
    """The piece as a no-op."""
    return lambda plan: plan


def relearned(mini: Mini, model: nn.Module) -> float:
    """Probability of the facts that the attacker does not have, after training on those that he has."""
    rows, found = mini.tokens("forget"), []
    for k in range(THIRDS):
        known = [i for i in range(len(rows)) if i % THIRDS == k]
        others = rows.take([i for i in range(len(rows)) if i % THIRDS != k])
        problem = Problem(model, task=CausalLM(), seed=mini.seed, known=rows.take(known))
        attack = Descent(fit("known"), how=clip(1.0), opt=adamw(3e-4, wd=0.0), steps=ATTACK, batch=12)
        found.append(language.probability(language.after(attack, problem), others))
    return sum(found) / THIRDS


def measure(method: Method, seed: int) -> Figures:
    """Probabilities after unlearning, and of facts not used in the attack after it."""
    mini = language.mini(seed)
    plans = {name: method(**given)(host()) for name, given in VARIANTS.items()}
    plans |= {"plain": host(), "grad_diff": unstopped(methods.grad_diff(gamma=1.0, **settings(STEPS)))}
    figures = {
        "before_relearned": relearned(mini, mini.model),
        "retrained_relearned": relearned(mini, mini.retrained()),
    }
    known: dict[str, Figures] = {}  # by what is printed: controls have one plan under many names
    for name, plan in plans.items():
        what = repr(plan)
        known[what] = known.get(what) or attacked(mini, plan)
        figures |= {f"{name}{figure}": value for figure, value in known[what].items()}
    return figures


def attacked(mini: Mini, plan: Stage) -> Figures:
    """Probabilities of forgotten and of retained facts after a plan, and of forgotten ones after the attack on it."""
    done = language.after(plan, mini.problem())
    return {
        "": language.probability(done, mini.tokens("forget")),
        "_retain": language.probability(done, mini.tokens("retain")),
        "_relearned": relearned(mini, done.model),
    }


CLAIM = Claim(
    says="After NPO forgotten facts come back when the model is trained on a third of them; with SAM on the forget "
    "term (rho 0.1) they come back less, hardly more than on a retrained model, and random smoothing (rs), penalties "
    "on the gradient (gp) and on its change (cr) and averaged weights (wa) lower it too. Retained facts stay.",
    trained=language.TRAINED,
    method=methods.smooth_unlearn,
    controls={"the host without the piece": unchanged},
    measure=measure,
    holds=(
        "rho_01_relearned <= plain_relearned - 0.08",
        "rho_01_relearned <= retrained_relearned + 0.06",
        "rho_01_retain > 0.97",
        "rs_relearned < plain_relearned",
        "gp_relearned < plain_relearned",
        "cr_relearned < plain_relearned",
        "wa_relearned < plain_relearned",
    ),
    changed=(
        Changed("facts of the attack", "12 of 36", "each third of the 36 in turn, the mean of the three attacks",
                "which facts the attacker has matters as much as what is compared"),
    ),
    because={
        "wa_relearned < plain_relearned": "An average lags behind the end of a run that still forgets: it has "
        "forgotten less, and the facts come back as before. On seeds 100 and 101 the mean of both was never below "
        "that of the plain run, 0.233, whether the average began in the middle or at 0.95 of the run (0.234 to 0.237), "
        "nor after 200 and 300 steps. The four other smoothers do lower it",
    },
)  # fmt: skip
