"""UNDIAL: it comes to rest by itself where ascent goes on to destroy the model. People who do not exist."""

from __future__ import annotations

import functools
from typing import Any

from oblivio import methods
from oblivio.audits.language.memorisation import probability
from oblivio.audits.language.responses import respond
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.grad_ascent_text import settings
from oblivio.claims.language import Mini
from oblivio.claims.problems import nothing, unstopped
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem

STEPS, EARLY = 150, 100
GIVEN = settings(STEPS, beta=10.0, lr=1e-4)


def ascent(beta: float, **given: Any) -> Stage:
    """Gradient ascent in its place."""
    plan: Stage = methods.grad_ascent(**given)
    return plan


def measures(mini: Mini) -> dict[str, language.Measure]:
    """Mean probabilities of an answer's words, without its end: of facts that go, asked in other words, and that stay.

    ``whole`` counts the end of a retained answer too.
    """
    end = mini.tokenizer.eos_token_id
    asked, kept = mini.tokens("forget", rephrased=True), mini.tokens("retain")

    def words(tokens: Any) -> language.Measure:
        def measure(problem: Problem) -> float:
            return float(probability(respond(problem.model, tokens, eos=end)).mean())

        return measure

    return {"forget": words(asked), "retain": words(kept), "whole": language.of(kept)}


def measure(method: Method, seed: int) -> Figures:
    """The course of the method, beside its published form, ascent and a retrained model."""
    mini = language.mini(seed)
    course = language.path(unstopped(method(**GIVEN)), mini.problem(), every=STEPS - EARLY, **measures(mini))
    early, late = (course.get(t, course[0]) for t in (EARLY, STEPS))  # a no-op makes no step
    return {
        **others(seed),
        "before": course[0]["forget"],
        "before_retain": course[0]["retain"],
        **{f"end_{what}": value for what, value in late.items()},
        "drift": abs(late["forget"] - early["forget"]),
        "drift_retain": abs(late["retain"] - early["retain"]),
    }


@functools.cache
def others(seed: int) -> Figures:
    """The end of the published form and of ascent, and a retrained model."""
    mini = language.mini(seed)
    problems = {
        "retrained": mini.problem(mini.retrained()),
        "published": language.after(unstopped(methods.undial(focus="all", **GIVEN)), mini.problem()),
        "ascent": language.after(unstopped(ascent(**GIVEN)), mini.problem()),
    }
    look = measures(mini)
    return {f"{name}_{what}": f(problem) for name, problem in problems.items() for what, f in look.items()}


CLAIM = Claim(
    says="After 150 steps without any retained data forgotten facts are improbable, asked in other words too, retained "
    "ones stay, and neither has changed much in the last 50 steps (drift). Ascent at the same rate and steps has lost "
    "the retained ones.",
    trained=language.TRAINED,
    method=methods.undial,
    controls={"gradient ascent": ascent, "the method as a no-op": nothing},
    measure=measure,
    holds=(
        "end_forget < 0.25",
        "end_retain > 0.85",
        "drift < 0.05",
        "drift_retain < 0.05",
        "ascent_retain < end_retain - 0.1",
    ),
    changed=(
        Changed("tokens whose logits are lowered", "every token of an answer", "all but its end",
                "all answers end alike: lowered there too (published), retained answers lose their end (whole), 0.39 "
                "and 0.36 against 0.93 and 0.90 on the seeds 100 and 101"),
        Changed("probability", "of an answer", "of its words, without its end",
                "the words are what is to go; its end is left as it was"),
    ),
)  # fmt: skip
