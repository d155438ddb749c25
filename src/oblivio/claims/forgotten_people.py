"""A tenth of the people forgotten by NPO with a retain term: beside retrained models, and ascent at equal forgetting."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import torch

from oblivio import methods
from oblivio.audits.language import knowledge
from oblivio.audits.language.responses import respond
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.language import Mini
from oblivio.core.plan import Stage

PEOPLE: dict[str, int] = {"authors": 180, "forget": 18, "holdout": 18}  # 108 facts to forget
STEPS, REFERENCES = 1500, 3


def measure(method: Method, seed: int) -> Figures:
    """NPO, ascent and the references of one seed."""
    mini = language.mini(seed, **PEOPLE)
    problem = mini.problem(mini.learned("retain+forget+world", seed, steps=STEPS))
    references = [mini.learned("retain+world", 1000 + 10 * seed + k, steps=STEPS) for k in range(REFERENCES)]
    ratios = [_ratios(mini, model) for model in references]
    sets = {name: mini.tokens(name) for name in ("forget", "retain", "world")}
    done = language.after(method(), problem)
    found = {name: language.probability(done, tokens) for name, tokens in sets.items()}
    theirs = {name: fmean(language.probability(m, tokens) for m in references) for name, tokens in sets.items()}
    tests = [knowledge.forget_quality(_ratios(mini, done.model), each) for each in ratios]
    among = [knowledge.forget_quality(a, b).statistic for i, a in enumerate(ratios) for b in ratios[:i]]
    ascent = _at(problem, found["forget"], sets)
    return {
        "before": language.probability(problem, sets["forget"]),
        **found,
        **{f"references_{name}": value for name, value in theirs.items()},
        "distance": max(each.statistic for each in tests),
        "references_distance": max(among),
        "p": min(each.p for each in tests),
        "rows": tests[0].rows,
        **{f"ascent_{name}": value for name, value in ascent.items()},
    }


def _ratios(mini: Mini, model: Any) -> torch.Tensor:
    """Truth ratios on what is to be forgotten, asked in other words, as TOFU's stand-in has it."""
    answers = ["paraphrase", *range(5)]
    found = [
        respond(model, mini.tokens("forget", rephrased=True, answer=each), eos=mini.tokenizer.eos_token_id)  # type: ignore[arg-type]
        for each in answers
    ]
    return knowledge.truth_ratio(found[0], found[1:])


def _at(problem: Any, level: float, sets: dict[str, Any]) -> Figures:
    """Gradient ascent where forgotten answers first are as unlikely as the method made them."""
    measures = {name: language.of(tokens) for name, tokens in sets.items()}
    plan = methods.grad_ascent(lr=3e-4, optimiser="adamw", epochs=10, batch=12)
    return language.first(language.path(plan, problem, every=2, **measures), "forget", level + 1e-9)


def nothing(**_: Any) -> Stage:
    """The method as a no-op."""
    plan: Stage = methods.npo(lr=1e-12, epochs=1, optimiser="adamw", batch=12)
    return plan


def npo() -> Stage:
    """The method with its defaults on texts."""
    plan: Stage = methods.npo(**methods.spec("npo").defaults("causal_lm"))
    return plan


def ascent() -> Stage:
    """The obvious baseline: gradient ascent with its defaults on texts."""
    plan: Stage = methods.grad_ascent(**methods.spec("grad_ascent").defaults("causal_lm"))
    return plan


CLAIM = Claim(
    says="NPO with a retain term, at its defaults on texts, makes 108 facts about 18 of 180 people as unlikely as they "
    "are for models that never saw them; truth ratios lie as near to those of each reference as these lie to each other, "
    "within 0.1 (Kolmogorov-Smirnov); what is retained and facts of the world, which the method was never given, stay "
    "at 95% of the references'. Gradient ascent stands beside it where it forgot as much.",
    trained="people who do not exist (162 retained, 18 forgotten, 20 of the world); Llama, 4 blocks of width 64, 1,500 steps",
    method=npo,
    controls={"the method as a no-op": nothing, "gradient ascent": ascent},
    measure=measure,
    holds=(
        "abs(forget - references_forget) <= 0.15",
        "distance <= references_distance + 0.1",
        "retain >= 0.95 * references_retain",
        "world >= 0.95 * references_world",
        "rows >= 100",
    ),
    changed=(Changed("medians of 3 seeds", "medians", "means", "what every claim is judged by"),),
)
