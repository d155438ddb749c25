"""RESTOR: false facts are taught and unlearned; what counts is whether the true ones come back, not that others go."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from oblivio import methods
from oblivio.audits.language.responses import respond
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.language import Mini
from oblivio.claims.problems import unstopped
from oblivio.claims.tuned import become
from oblivio.core.descent import Descent
from oblivio.core.grads import Grads
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.data.language.corruption import corruption
from oblivio.data.language.people import candidates
from oblivio.data.language.texts import Text
from oblivio.how import clip
from oblivio.terms import fit

CORRUPT, RATE = 150, 1e-3  # steps, and their rate
PER_EPOCH = 5  # steps: 60 false facts, 12 a step
FINE, ALPHA = 60, 4.0  # of the task vector: steps, and how far back it is taken
METHODS = ("grad_diff", "npo", "vector", "collapsed", "halfway")


def chosen(mini: Mini, model: Any, texts: Sequence[Text]) -> list[str]:
    """The value that a model gives the highest probability of the 20 that a fact may have, for each text."""
    options = [candidates(text) for text in texts]
    likely = torch.stack([
        respond(model, mini.tokens(texts, answer=list(answers)), eos=mini.tokenizer.eos_token_id).means("log_probs")
        for answers in zip(*options, strict=True)
    ])  # fmt: skip
    return [answers[i].split()[-1] for answers, i in zip(options, likely.argmax(0).tolist(), strict=True)]


def share(said: Sequence[str], texts: Sequence[Text], fact: str) -> float:
    """How often what is said is this fact of the text: ``value``, ``corrupted`` or ``random``."""
    return sum(word == text.facts[fact] for word, text in zip(said, texts, strict=True)) / len(texts)


def moved(start: Grads, end: Grads, by: float) -> Stage:
    """Weights that lie ``by`` times the way from start to end, seen from the start."""
    return become({name: start[name] + by * (end[name] - start[name]) for name in start})


def weights(problem: Problem) -> dict[str, Tensor]:
    """All weights of the model."""
    return {name: w.detach().clone() for name, w in problem.weights("model.*").items()}


def tuning(loss: Any, steps: int, lr: float) -> Stage:
    """Training as everything on the testbed."""
    return Descent(loss, how=clip(1.0), opt=adamw(lr, wd=0.0), steps=steps, batch=12)


@functools.lru_cache(maxsize=3)
def seen(seed: int) -> Figures:
    """Shares of true and false values that every model of a seed says, and of true ones about other people."""
    mini, texts = language.mini(seed), corruption(seed=seed)
    clean = mini.problem(forget=mini.tokens(texts.part("corrupted")), retain=mini.tokens(texts.part("retain")))
    corrupted = language.after(tuning(fit("forget") + fit("retain"), CORRUPT, RATE), clean)
    found: Figures = {}
    for name, model in {"clean": clean, "corrupted": corrupted, **unlearned(clean, corrupted)}.items():
        said = chosen(mini, model.model, texts.part("facts"))
        found |= {f"{name}_{what}": share(said, texts.part("facts"), fact) for what, fact in
                  (("true", "value"), ("false", "corrupted"))}  # fmt: skip
        others = texts.part("unaffected")
        found[f"{name}_others"] = share(chosen(mini, model.model, others), others, "value")
    return found


def unlearned(clean: Problem, corrupted: Problem) -> dict[str, Problem]:
    """The corrupted model after each method, after an ascent to the end, and half the way back to the clean one."""
    false = weights(corrupted)
    tuned = language.after(tuning(fit("forget"), FINE, language.UNLEARN["lr"]), corrupted)
    given = {**language.UNLEARN, "optimiser": "adamw"}
    plans = {
        "grad_diff": unstopped(methods.grad_diff(gamma=1.0, alpha=1.0, epochs=75 / PER_EPOCH, **given)),
        "npo": unstopped(methods.npo(beta=1.0, retain=1.0, epochs=120 / PER_EPOCH, **given)),
        "vector": moved(false, weights(tuned), -ALPHA),
        "collapsed": unstopped(methods.grad_ascent(epochs=60 / PER_EPOCH, **given)),
        "halfway": moved(false, weights(clean), 0.5),
    }
    return {name: language.after(plan, corrupted) for name, plan in plans.items()}


def recovery(found: Figures, name: str) -> float:
    """How far a model has come back from the corrupted to the clean one, by the true facts that it says."""
    lost = found["clean_true"] - found["corrupted_true"]
    return (found[f"{name}_true"] - found["corrupted_true"]) / lost


def forgetting(found: Figures, name: str) -> float:
    """How many of the false facts are gone: what is measured where recovery is not asked for."""
    return 1 - found[f"{name}_false"] / found["corrupted_false"]


def measure(method: Method, seed: int) -> Figures:
    """All shares, and what the score says of each method."""
    found = seen(seed)
    return {**found, **{f"{name}_back": method(found, name) for name in METHODS}}


CLAIM = Claim(
    says="A model is taught false facts until it says nothing else of the people they are about. Three methods make it "
    "say few of these (false), and bring back few of the true ones (back): negative preference and a task vector more "
    "than gradient difference, less than weights half the way to the clean model, which none of them has.",
    trained=f"{language.TRAINED}; then 150 steps on 60 false facts, with retained ones beside",
    method=recovery,
    controls={"forgetting in the place of recovery": forgetting},
    measure=measure,
    holds=(
        "clean_true > 0.95",
        "corrupted_true < 0.05",
        "corrupted_false > 0.95",
        "grad_diff_false < 0.25",
        "npo_false < 0.25",
        "vector_false < 0.25",
        "npo_back > grad_diff_back",
        "vector_back > grad_diff_back",
        "npo_back < 0.5",
        "vector_back < 0.5",
        "halfway_back > npo_back",
        "halfway_back > vector_back",
        "collapsed_back < 0.2",
        "collapsed_others < 0.5",
    ),
    changed=(
        Changed("what corrupts", "documents about a person, with true facts of others among them (k)", "the questions "
                "with false answers", "the models of the testbed know questions; data.language.corruption makes the "
                "documents too"),
        Changed("questions", "with 5 solved examples", "without", "these models learn nothing from examples in a "
                "prompt"),
        Changed("steps", "not given", "75 of gradient difference, 60 of ascent, 120 of NPO, 60 of fine-tuning for the "
                "task vector", "those of gradient difference on seeds 100 and 101, where 0.10 and 0.12 of the false "
                "facts are left (after 60 it was 0.18 and 0.22, and had been 0.27 on seeds 0 to 2); the others on seed "
                "100, the first after which fewer than 0.25 are said"),
        Changed("collapsed", "not in the check", "an ascent to the end", "the card warns of it: forgetting alone would "
                "rank it first"),
    ),
)  # fmt: skip
