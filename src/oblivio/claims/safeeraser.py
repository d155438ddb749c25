"""SafeEraser: forgetting unsafe answers to a picture and a question together, and what Prompt Decouple adds to it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from oblivio import methods
from oblivio.audits.language import vision
from oblivio.claims.claim import Changed, Claim, Figures
from oblivio.claims.vision import LANGUAGE, Mini, keywords, mini
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.data.language.risks import risks

SAFE = "retain+decoupled+others"
RATES = {"lr": 3e-4, "batch": 16, "epochs": 6}
_runs: dict[tuple[str, int], Figures] = {}
WEIGHTS = {"ga": 0.5, "gd": 0.5, "po": 1.0}  # of decoupled rows in the paper


@functools.cache
def drawn(seed: int) -> Mini:
    """The pictures, questions and words of a seed."""
    return mini(risks(test=12, seed=seed), seed, size=8, prefix=1, steps=400)


def original(case: Mini) -> nn.Module:
    """The model that learned all answers."""
    return case.learned(f"unsafe+{SAFE}", case.seed)


def baselines() -> dict[str, Stage]:
    """Ascent, difference (with retained rows at half their weight, as there) and refusals, on what is not the eyes."""
    plans = {
        "ga": methods.grad_ascent(**RATES, optimiser="adamw"),
        "gd": methods.grad_diff(**RATES, optimiser="adamw", gamma=1.0, alpha=0.5),
        "po": methods.pref_opt_idk(**RATES, loss="po"),
    }
    return {name: plan.but(where=LANGUAGE) for name, plan in plans.items()}


def normal(case: Mini, problem: Problem, part: str) -> Tensor:
    """Whether each answer of a part is the normal one; booleans of shape (n,)."""
    texts = case.drawn.part(part)
    return vision.keyword_match(case.written(problem, texts), keywords(texts)) == 1


def scores(case: Mini, problem: Problem, before: Tensor) -> Figures:
    """Forgetting on other pictures, over-refusal (a wrong answer counts as one), and what else is still answered."""
    others = torch.cat([normal(case, problem, part) for part in ("retain_new", "others_new")])
    return {
        "forgot": float((~normal(case, problem, "unsafe_new")).double().mean()),
        "sarr": vision.sarr(before, ~normal(case, problem, "benign_new")),
        "others": float(others.double().mean()),
    }


@functools.cache
def ends(seed: int) -> Figures:
    """The original, and a model that never learned the unsafe answers."""
    case = drawn(seed)
    start, retrained = (_request(case, m) for m in (original(case), case.learned(SAFE, 1000 + seed)))
    before = normal(case, start, "benign_new")
    models = {"original": start, "retrained": retrained}
    each = {name: scores(case, problem, before) for name, problem in models.items()}
    return {f"{name}_{what}": value for name, found in each.items() for what, value in found.items()}


def measure(method: Callable[..., Callable[[Stage], Stage]], seed: int) -> Figures:
    """Every baseline without the piece and with it."""
    found = dict(ends(seed))
    for name, plan in baselines().items():
        for ending, each in (("", plan), ("_pd", method(weight=WEIGHTS[name])(plan))):
            found |= {f"{name}{ending}_{what}": value for what, value in _unlearned(each, seed).items()}
    return found


def _request(case: Mini, model: nn.Module) -> Problem:
    return case.problem(model, forget="unsafe", retain="retain", decoupled="decoupled")


def _unlearned(plan: Stage, seed: int) -> Figures:
    """The figures after a plan; one that prints the same is run once."""
    if (known := (repr(plan), seed)) not in _runs:
        case = drawn(seed)
        start = _request(case, original(case))
        before = normal(case, start, "benign_new")
        Run(plan, start).go()
        _runs[known] = scores(case, start, before)
    return _runs[known]


def no_piece(weight: float) -> Callable[[Stage], Stage]:
    """A piece that changes nothing."""
    return lambda plan: plan


CLAIM = Claim(
    says="Refusals and gradient difference forget the unsafe answers, and refuse the same question about harmless "
    "pictures; with Prompt Decouple they do so at most half as often, on pictures that are not learned (SARR; a wrong "
    "answer counts as a refusal), and go on forgetting the unsafe ones and answering all else.",
    trained="40 pictures of each digit with five questions; one of these is unsafe about 0 to 4. One prefix token "
    "from a CNN, Llama of 2 blocks and width 64, 400 steps",
    method=methods.safeeraser,
    controls={"no piece": no_piece},
    measure=measure,
    holds=(
        "po_pd_sarr <= 0.5 * po_sarr",
        "gd_pd_sarr <= 0.5 * gd_sarr",
        "min(po_pd_forgot, gd_pd_forgot) > 0.9",
        "min(po_pd_others, gd_pd_others) > 0.9",
        "retrained_sarr <= 0.2",
        "ga_sarr > po_pd_sarr",
    ),
    changed=(
        Changed("the network", "a frozen CNN", "a CNN trained along, and frozen while forgetting",
                "the answers are what teaches it to tell digits apart"),
        Changed("retained and decoupled rows", "none named in the check",
                "retained: the four other questions about the unsafe pictures; decoupled: half of the harmless "
                "pictures",
                "as in the paper: four harmless questions an image, and decoupled images of their own"),
        Changed("judged by a model", "attack success and refusals by a judge", "exact answers", "answers are one word"),
    ),
)  # fmt: skip
