"""TOFU: facts that exist nowhere else, so that a model which never saw them is an exact standard, and what it shows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from oblivio import methods
from oblivio.audits.language.knowledge import forget_quality, model_utility
from oblivio.audits.language.memorisation import extraction_strength
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures
from oblivio.claims.language import Mini
from oblivio.claims.lm_unlearning_metrics import Look
from oblivio.claims.problems import unstopped
from oblivio.core.plan import Stage

USEFUL = 0.95  # of the utility that the model had, for one that has not lost any
ACCEPTED = 0.05  # p above which nothing tells a model from a retrained one


@dataclass(frozen=True)
class Models:
    """Who counts as having learned everything, and who as the k-th that never saw what is to be forgotten."""

    full: Callable[[Mini], nn.Module]
    never: Callable[[Mini, int], nn.Module]


def benchmark() -> Models:
    """The models of TOFU."""
    return Models(lambda mini: mini.model, lambda mini, k: mini.retrained(k))


def never_learned() -> Models:
    """A model that never saw the facts passed off as the full one."""
    return Models(lambda mini: mini.retrained(2), lambda mini, k: mini.retrained(k))


def not_retrained() -> Models:
    """The full model passed off as retrained."""
    return Models(lambda mini: mini.model, lambda mini, k: mini.model)


def baselines() -> dict[str, Stage]:
    """What the paper tries, at the defaults for texts."""

    def plan(name: str, **others: object) -> Stage:
        made: Stage = methods.registry.get(name)(**methods.spec(name).defaults("causal_lm") | others)
        return unstopped(made)

    return {
        "ascent": plan("grad_ascent", epochs=20),
        "difference": plan("grad_diff", gamma=1.0, epochs=40),
        "kl": plan("kl_min"),
        "refusal": plan("pref_opt_idk", loss="po"),
    }


def measure(method: Callable[[], Models], seed: int) -> Figures:
    """What the models know, whether they can be told from retrained ones, and the four baselines of the paper."""
    mini, models = language.mini(seed), method()
    look, full, retrained = Look(mini), models.full(mini), models.never(mini, 0)
    standard = look.ratios(retrained, "forget")

    def p(model: nn.Module) -> float:
        return forget_quality(look.ratios(model, "forget"), standard).p

    found = {
        "full_forget": language.probability(full, mini.tokens("forget")),
        "full_es": float(extraction_strength(look.responses(full, "forget")).mean()),
        "full_p": p(full),
        "full_utility": utility(look, full),
        **{f"retrained_{part}": language.probability(retrained, mini.tokens(part))
           for part in ("forget", "retain", "world")},
        "again_p": p(models.never(mini, 1)),
    }  # fmt: skip
    for name, (ratios, useful) in tried(seed).items():
        found |= {f"{name}_p": forget_quality(ratios, standard).p, f"{name}_utility": useful}
    return found | {"acceptable": float(sum(accepted(found, name) for name in baselines()))}


@functools.cache
def tried(seed: int) -> dict[str, tuple[Tensor, float]]:
    """Truth ratios and utility after each baseline."""
    mini = language.mini(seed)
    look = Look(mini)
    models = {name: language.after(plan, mini.problem()).model for name, plan in baselines().items()}
    return {name: (look.ratios(model, "forget"), utility(look, model)) for name, model in models.items()}


def utility(look: Look, model: nn.Module) -> float:
    """The harmonic mean of probability, ROUGE and truth ratio on what is retained and on the world."""
    parts = {**look.utility(model, "retain", choices=False), **look.utility(model, "world", choices=True)}
    return model_utility(parts).value


def accepted(found: Figures, name: str) -> bool:
    """Whether a baseline cannot be told from a retrained model, and is as useful as before."""
    return found[f"{name}_p"] > ACCEPTED and found[f"{name}_utility"] > USEFUL * found["full_utility"]


CLAIM = Claim(
    says="A model that learned the people gives every fact back, and truth ratios tell it from a retrained one; that "
    "one knows everything else, and a second retrained one cannot be told from it. None of ascent, difference, KL and "
    "refusals passes as retrained and stays as useful as it was (acceptable: how many do).",
    trained=language.TRAINED,
    method=benchmark,
    controls={"a model that never saw the facts as the full one": never_learned, "the full one as retrained":
              not_retrained},
    measure=measure,
    holds=(
        "full_forget > 0.95",
        "full_es >= 1",
        "full_p < 0.000001",
        "retrained_forget < 0.3",
        "retrained_retain > 0.95",
        "retrained_world > 0.95",
        "again_p > 0.05",
        "acceptable < 1",
    ),
    changed=(
        Changed("utility", "9 figures, of retained people, real authors and world facts", "6, of retained people and "
                "people of the world", "the tiny models know of no other"),
        Changed("baselines", "not in the check", "the four of the paper, at most 60 to 120 steps", "its claim is about "
                "them"),
    ),
)  # fmt: skip
