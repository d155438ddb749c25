"""O3: three requests in turn without retained rows; a gate keeps the rest, adapters apart what went before."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.data.language.texts import Text
from oblivio.modules.gated_adapters import pooled, prompts
from oblivio.sources.tokens import Tokens

REQUESTS, PEOPLE = 3, 3


def requests(mini: language.Mini) -> list[list[Text]]:
    """The texts of each request: all facts of three people."""
    texts = mini.texts.part("forget")
    who = list(dict.fromkeys(text.group for text in texts))
    parts = [who[i * PEOPLE : (i + 1) * PEOPLE] for i in range(REQUESTS)]
    return [[text for text in texts if text.group in part] for part in parts]


def in_turn(mini: language.Mini, plan: Stage) -> Problem:
    """The problem after all requests, each put to what the one before left."""
    asked = [mini.tokens(texts) for texts in requests(mini)]
    problem = mini.problem(forget=asked[0])
    for turn, rows in enumerate(asked):
        problem.turn, problem.sources["forget"] = turn, problem._named("forget", rows)
        problem = language.after(plan, problem)
    return problem


def measure(method: Method, seed: int) -> Figures:
    """After three requests: what is left of each, of the rest, and of the rest with the adapters always on."""
    mini = language.mini(seed, forget=REQUESTS * PEOPLE)
    rows = {part: mini.tokens(part) for part in ("forget", "retain", "world")}
    first = mini.tokens(requests(mini)[0])
    done, loose = in_turn(mini, method()), in_turn(mini, method(orthogonality=0.0))
    ascended = in_turn(mini, ascent())
    on: Any = getattr(done.model, "model", done.model) if hasattr(done.model, "detectors") else done.model
    return {
        **{part: language.probability(done, tokens) for part, tokens in rows.items()},
        "first": language.probability(done, first),
        "first_without": language.probability(loose, first),
        "on_retain": language.probability(on, rows["retain"]),
        "ascent_forget": language.probability(ascended, rows["forget"]),
        "ascent_retain": language.probability(ascended, rows["retain"]),
        "auc": auc(done, rows["forget"], rows["world"]),
        "retrained": language.probability(mini.retrained(), rows["forget"]),
    }


def auc(problem: Problem, forget: Tokens, world: Tokens) -> float:
    """How well the detectors tell forgotten questions from others: the greatest nearness of any; 0.5 without one."""
    model: Any = problem.model
    if not hasattr(model, "detectors"):
        return 0.5
    near = torch.cat([_near(model, forget), _near(model, world)]).tolist()
    return float(roc_auc_score([1] * len(forget) + [0] * len(world), near))


def _near(model: Any, rows: Tokens) -> Tensor:
    """Minus the distance of v from the middle of a detector's levels, in its deviations; shape (rows,)."""
    ids = rows.batch(torch.arange(len(rows)))["x"]
    states = model.states(ids)
    found = []
    for each in model.detectors:
        v = each.value(pooled(states, prompts(ids, each.marker, model.pad)))
        found.append(-((v - each.levels[:2].mean()) / each.levels[2]).abs())
    return torch.stack(found).amax(0)


def ascent(**settings: Any) -> Stage:
    """Gradient ascent on each request in its place."""
    plan: Stage = methods.grad_ascent(**methods.spec("grad_ascent").defaults("causal_lm"))
    return plan


CLAIM = Claim(
    says="Three requests of three people each, one after the other, without retained rows: in the end all nine are "
    "forgotten, and retained and other people are not, whom the same adapters always on would cost, as ascent does. "
    "The detectors tell the nine from the world's people (auc). Without the orthogonal term the first request is "
    "forgotten less in the end (first_without).",
    trained=f"{language.TRAINED}; here {REQUESTS * PEOPLE} are forgotten and {60 - REQUESTS * PEOPLE} retained",
    method=methods.o3,
    controls={"ascent on each request": ascent},
    measure=measure,
    holds=(
        "auc > 0.9",
        "forget < 0.3",
        "retain > 0.95",
        "world > 0.95",
        "on_retain < retain - 0.1",
        "first_without > first",
        "ascent_retain < retain",
    ),
    changed=(
        Changed("score", "the cosine with a minus", "with a plus",
                "with a minus it cancels the distance: a tenth of the retained prompts got a weight (seed 100)"),
        Changed("held-out prompts", "a second normal is fitted to them", "none are held out",
                "each fact is a question of its own here: held-out ones were as far off as the world's (seed 100)"),
        Changed("new adapter", "begins as the one before", "begins at zero beside those before, which stay",
                "the card's own remark: else the penalty is greatest at the first step"),
        Changed("refusals by fine-tuning", "a second baseline", "left out", "it is in the claim of pref_opt_idk"),
    ),
)  # fmt: skip
