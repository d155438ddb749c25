"""ULD forgets at no cost to the rest, where gradient difference pays; how far it goes is one number."""

from __future__ import annotations

from typing import Any

from torch import nn

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem

STRENGTHS = (-0.25, -0.5, -0.8, -1.2)
EVERY = 10  # steps between two looks at gradient difference


def measure(method: Method, seed: int) -> Figures:
    """The served model at several w, its assistant alone, and gradient difference where it has forgotten as much."""
    mini = language.mini(seed)
    problem = mini.problem()
    rows = {part: mini.tokens(part) for part in ("forget", "retain", "world")}
    done = language.after(method(w=STRENGTHS[2]), problem)
    found = {part: language.probability(done, tokens) for part, tokens in rows.items()}
    found |= {f"forget_{i}": language.probability(_at(done, w), rows["forget"]) for i, w in enumerate(STRENGTHS)}
    found["assistant_retain"] = language.probability(_assistant(done), rows["retain"])
    found["assistant_forget"] = language.probability(_assistant(done), rows["forget"])
    ascent = methods.grad_diff(**methods.spec("grad_diff").defaults("causal_lm"))
    course = language.path(ascent, problem, EVERY, **{part: language.of(tokens) for part, tokens in rows.items()})
    least = language.first(course, "forget", max(found["forget"], 0.12))
    return {
        **found,
        "ascent_forget": least["forget"],
        "ascent_retain": least["retain"],
        "ascent_world": least["world"],
        "retrained": language.probability(mini.retrained(), rows["forget"]),
        "retrained_world": language.probability(mini.retrained(), rows["world"]),
    }


def _at(problem: Problem, w: float) -> Problem:
    """The same at another strength; nothing is trained for it."""
    model: Any = problem.copy()
    if hasattr(model.model, "w"):
        model.model.w = w
    served: Problem = model
    return served


def _assistant(problem: Problem) -> nn.Module:
    """The assistant; of a method that has none, the model."""
    found: nn.Module = getattr(problem.model, "assistant", problem.model)
    return found


def ascent(w: float) -> Stage:
    """Gradient difference in its place."""
    plan: Stage = methods.grad_diff(**methods.spec("grad_diff").defaults("causal_lm"))
    return plan


CLAIM = Claim(
    says="A subtracted assistant of the first 2 of 4 blocks, with w = -0.8, brings the forgotten facts below 0.2 and "
    "leaves the retained ones and the world's, where gradient difference loses some of them by the time it has "
    "forgotten as much. The assistant alone knows nothing of them; the stronger it is subtracted (forget_0 "
    "to forget_3: w = -0.25, -0.5, -0.8, -1.2), the more is forgotten.",
    trained=language.TRAINED,
    method=methods.uld,
    controls={"gradient difference": ascent},
    measure=measure,
    holds=(
        "forget < 0.2",
        "retain > 0.98",
        "world > 0.98",
        "retain > ascent_retain",
        "world > ascent_world + 0.1",
        "assistant_retain < 0.02",
    ),
    always=("forget_0 > forget_1", "forget_1 > forget_2", "forget_2 > forget_3"),
    changed=(
        Changed("w", "-1", "-0.8, the paper's for TOFU",
                "with -1 the true answer is forgotten beyond a retrained model's level (0.01 of seed 100)"),
        Changed("wrong answers", "uniform at all their tokens", "at those after the first untrue one",
                "answers are of one or two words here, and before that token the text is the one to be remembered"),
        Changed("retained rows", "a fixed sample of the forget size", "as many an epoch, others in the next",
                "36 fixed rows left the assistant uneven on the others: retain 0.89 with w = -1 (seed 100)"),
    ),
    because={
        "world > ascent_world + 0.1": "The baseline, ascent with a retain term stopped at the same forgetting, "
        "keeps more of the world"
        "(0.92) than in the card's prototype (0.77). The method keeps 0.987.",
    },
)  # fmt: skip
