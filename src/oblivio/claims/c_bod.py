"""C-BOD: a paired test of questions in their own words and in others tells knowledge from wording."""

from __future__ import annotations

import functools
from dataclasses import replace

from torch import Tensor, nn

from oblivio import methods
from oblivio.audits.language import memorisation
from oblivio.audits.language.responses import respond
from oblivio.audits.language.reword import Reworded, c_bod
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.language import Mini
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.data.language.texts import Text

LEFT = 0.1  # of the forgotten questions in their own words, answered right, at most: there the two plans are compared
EVERY, EPOCHS = 3, 70  # steps between looks; epochs of three steps, at most


def both(mini: Mini, parts: str) -> list[Text]:
    """The texts of some parts, each asked for in both templates."""
    texts = mini.texts_of(parts)
    return [*texts, *(replace(text, prompt=text.rephrased, id=f"{text.id} reworded") for text in texts)]


def right(model: nn.Module, mini: Mini, part: str, *, rephrased: bool) -> Tensor:
    """Whether greedy decoding gives the answer, shape (rows,): whether each of its tokens is the likeliest."""
    asked = mini.tokens(part, rephrased=rephrased)
    return (memorisation.exact_memorisation(respond(model, asked, eos=mini.tokenizer.eos_token_id)) == 1).double()


Pair = tuple[Tensor, Tensor]


def asked(model: nn.Module, mini: Mini, part: str) -> Pair:
    """What is right of a part in its own words, and in others."""
    return right(model, mini, part, rephrased=False), right(model, mini, part, rephrased=True)


def forgotten(plan: Stage, problem: Problem, mini: Mini) -> Pair:
    """The pair at the first look at which few of the questions that were unlearned are still answered right."""
    course: list[Pair] = []

    def look(changed: Problem) -> float:
        if not course or course[-1][0].mean() > LEFT:
            course.append(asked(changed.model, mini, "forget"))
        return float(course[-1][0].mean())

    language.path(plan, problem, every=EVERY, own=look)
    return course[-1]


@functools.lru_cache(maxsize=3)
def pairs(seed: int) -> dict[str, Pair]:
    """Scores in both wordings, of models that learned one template or both, and of what is left after unlearning."""
    mini = language.mini(seed)
    knows = language.learn(mini.tokens(both(mini, "retain+forget+world")), mini.tokenizer, seed)
    never = language.learn(mini.tokens(both(mini, "retain+world")), mini.tokenizer, 1000 + 10 * seed)
    problem = mini.problem(knows)
    return {
        "one": asked(mini.model, mini, "retain"),
        "both": asked(knows, mini, "retain"),
        "refused": forgotten(methods.pref_opt_idk(loss="po", epochs=EPOCHS, **language.UNLEARN), problem, mini),
        "pressed": forgotten(methods.simnpo(epochs=EPOCHS, **language.UNLEARN), problem, mini),
        "retrained": asked(never, mini, "forget"),
    }


def untested(original: Tensor, reworded: Tensor) -> Reworded:
    """Any difference taken for a finding."""
    found = c_bod(original, reworded)
    return replace(found, p=1.0 if found.b == found.c else 0.0)


def measure(method: Method, seed: int) -> Figures:
    """b, c and p of each model, and its share of right answers in either wording."""
    figures: Figures = {}
    for name, pair in pairs(seed).items():
        found = method(*pair)
        figures |= {
            f"{name}_b": found.b,
            f"{name}_c": found.c,
            f"{name}_p": found.p,
            f"{name}_score": found.score,
            f"{name}_reworded": found.reworded,
        }
    return figures


CLAIM = Claim(
    says="Of a model that learned facts by one template, retained questions show that it leans on the words (one); of "
    "one that learned them by two, they do not (both). Refusals taught on the first template alone leave the facts to "
    "be asked for by the second (refused); SimNPO that leaves as few in their own words does so less (pressed). A "
    "retrained model shows nothing.",
    trained=language.TRAINED,
    method=c_bod,
    controls={"any difference taken for a finding": untested},
    measure=measure,
    holds=("pressed_c - pressed_b < refused_c - refused_b",),
    always=(
        "one_p < 0.05",
        "one_b > one_c",
        "both_p > 0.05",
        "refused_p < 0.05",
        "refused_c > refused_b",
        "refused_score <= 0.1",
        "pressed_score <= 0.1",
        "retrained_p > 0.05",
    ),
    changed=(
        Changed("where plans are compared", "the same score in their own words", "the first look, every 3 steps, at "
                "which at most 0.1 are right", "the score moves by single questions, 36 in all"),
        Changed("start of the plans", "not given", "the model that learned both templates", "what is left in the "
                "second one is then left by the plan; of the other model a tenth was never known there"),
    ),
    because={
        "refused_c > refused_b": "This small model answers both templates from one and the same place, so that "
        "refusals taught on one are given to the other too, and nothing is left for SimNPO to do better. On the seeds "
        "100 and 101 the second template kept at most 0.11 more on the way, not significant on 36 questions, also with "
        "retained questions in both templates, with other rates and with other weights of them",
    },
)  # fmt: skip
