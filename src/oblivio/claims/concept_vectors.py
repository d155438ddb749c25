"""Concept vectors: what unlearning by behaviour leaves in the weights, and what taking it out does."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from oblivio import methods
from oblivio.audits.language.concepts import Place, compare, drops, rank, value_vectors
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.core.descent import Descent
from oblivio.core.opt import adamw
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.edits.ablate import ablate
from oblivio.sources.tokens import Tokens
from oblivio.terms import fit

NEEDLES, AGAIN, TOP, OTHERS = 5, 10, 20, 60  # vectors taken out, steps of relearning, tokens of a vector, rows
STOPPED = 0.3  # probability of the forgotten facts


def anywhere(model: nn.Module, concept: Tokens, others: Tokens) -> list[Place]:
    """Vectors at random."""
    places = [(i, j) for i, vectors in enumerate(value_vectors(model)) for j in range(len(vectors))]
    order = torch.randperm(len(places), generator=generator("anywhere", len(concept), len(others)))
    return [places[i] for i in order.tolist()]


def pressed(mini: language.Mini, concept: Tokens) -> Problem:
    """After NPO, stopped as soon as the facts are unlikely."""
    plan: Any = methods.npo(lr=3e-4, epochs=60, batch=12, optimiser="adamw")
    plan.until, plan.every = lambda problem: language.probability(problem, concept) < STOPPED, 1
    return language.after(plan, mini.problem(forget=concept))


def relearned(mini: language.Mini, model: nn.Module, concept: Tokens) -> float:
    """The probability of the facts after a few steps of training on half of them, of the other half."""
    known, others = concept.take(range(0, len(concept), 2)), concept.take(range(1, len(concept), 2))
    attack = Descent(fit("train"), opt=adamw(1e-3, wd=0.0), steps=AGAIN, batch=None)
    done = language.after(attack, mini.problem(model, forget=None, retain=None, train=known))
    return language.probability(done, others)


@functools.cache
def setting(seed: int) -> tuple[language.Mini, dict[str, Tokens], dict[str, nn.Module]]:
    """The texts, facts of the person and of others, and the models that do not depend on which vectors are found."""
    mini = language.mini(seed, rich=1)
    person = mini.texts.part("forget")[0].group
    concept = mini.tokens([text for text in mini.texts.part("forget") if text.group == person])
    others = mini.tokens("retain").take(range(0, 324, 324 // OTHERS))
    models = {"start": mini.model, "npo": pressed(mini, concept).model, "retrained": mini.retrained()}
    return mini, {"concept": concept, "others": others}, models


def measure(method: Method, seed: int) -> Figures:
    """Drops in probability without the first vectors; what NPO leaves of them; how soon facts come back."""
    mini, both, models = setting(seed)
    places: Sequence[Place] = method(mini.model, both["concept"], both["others"])
    models = {**models, "needles": without(mini, places[:NEEDLES])}
    figures = {f"best_{name}": float(drops(mini.model, rows, places[:1])[0]) for name, rows in both.items()}
    for name, model in models.items():
        figures |= {f"{name}_{what}": language.probability(model, rows) for what, rows in both.items()}
        figures[f"{name}_relearned"] = relearned(mini, model, both["concept"])
    traces = compare(mini.model, models["npo"], places[:1], k=TOP)
    figures |= {"cosine": float(traces.cosine[0]), "jaccard": float(traces.jaccard[0])}
    return figures | needed(mini, places, both)


def without(mini: language.Mini, places: Sequence[Place]) -> nn.Module:
    """The model without these vectors."""
    return language.after(ablate(places), mini.problem()).model


def needed(mini: language.Mini, places: Sequence[Place], both: dict[str, Tokens]) -> Figures:
    """How many of the first vectors must go until the facts are unlikely, in doublings, and what is left of others."""
    count, model = NEEDLES, without(mini, places[:NEEDLES])
    while language.probability(model, both["concept"]) >= STOPPED and count < len(places):
        count *= 2
        model = without(mini, places[:count])
    return {"needed": count, "needed_others": language.probability(model, both["others"])}


CLAIM = Claim(
    says="Of a person with 20 facts one value vector is found without which those facts fall at least three times as "
    "far as others; NPO, stopped when the facts are unlikely, leaves it as it was, and half of the facts bring the "
    "others back. Taking out the first five vectors is compared under the same training, as is a retrained model.",
    trained="people who do not exist, one of them with 20 facts; Llama, 4 blocks of width 64, 600 steps",
    method=rank,
    controls={"vectors at random": anywhere},
    measure=measure,
    holds=(
        "best_concept >= 3 * best_others",
        "best_concept > 0.003",
        "cosine > 0.95",
        "npo_relearned > retrained_relearned + 0.2",
    ),
    changed=(
        Changed("tokens of a vector", "200", "20", "the vocabulary has about 500 words"),
        Changed("relearning", "10 steps", "10 steps on half of the facts, measured on the other half",
                "facts that are trained come back whatever was done"),
    ),
)  # fmt: skip
