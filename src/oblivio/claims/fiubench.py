"""FIUBench: forgetting people who are known by their faces, with attacks on privacy in the score."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from torch import Tensor, nn

from oblivio import methods
from oblivio.audits.language import knowledge, membership, vision
from oblivio.audits.language.responses import Responses, respond
from oblivio.claims.claim import Changed, Claim, Figures
from oblivio.claims.vision import LANGUAGE, Mini, keywords, mini, until
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.data.language.faces import REPHRASED, faces, rephrasings
from oblivio.data.language.texts import Text

GONE = 0.05  # exact match at which methods are compared
RATES = {"lr": 3e-4, "batch": 12, "epochs": 40}


@dataclass(frozen=True)
class Benchmark:
    """Stage one and its reference; ``retrained(mini)`` is the model that counts as one that never saw the forgotten."""

    retrained: Callable[[Mini], nn.Module]


def whole() -> Benchmark:
    """The benchmark: the reference is trained on the retained people alone."""
    return Benchmark(lambda case: case.learned("retain", 1000 + case.seed))


def passed_off() -> Benchmark:
    """The original passed off as retrained."""
    return Benchmark(original)


@functools.cache
def drawn(seed: int) -> Mini:
    """The people, faces and words of a seed."""
    return mini(faces(images=3, unseen=1, seed=seed), seed, size=16, prefix=4, steps=450)


def original(case: Mini) -> nn.Module:
    """Stage one: all authors learned."""
    return case.learned("retain+forget", case.seed)


def request(case: Mini, model: nn.Module) -> Problem:
    """The request to forget, put to a model."""
    return case.problem(model, forget="forget", retain="retain")


# --- metrics


def ape(case: Mini, problem: Problem) -> float:
    """Adversarial privacy extraction: exact match over questions in other words."""
    texts = case.drawn.part("forget")
    asked = [[text.but(prompt=rephrasings(text)[i]) for text in texts] for i in range(len(REPHRASED))]
    return vision.extraction([case.written(problem, each) for each in asked], keywords(texts))


def leak(case: Mini, problem: Problem) -> float:
    """AUC of Min-K%++ between the forgotten people and some who were never learned; 1 = memorised."""
    scores = [membership.min_k_pp(answered(case, problem, case.drawn.part(part))) for part in ("forget", "holdout")]
    return membership.mia_auc(*scores)


def answered(case: Mini, problem: Problem, texts: Sequence[Text]) -> Responses:
    """Responses to the answers of these texts."""
    return respond(problem, case.tokens(texts), eos=case.tokenizer.eos_token_id)


def ratios(case: Mini, problem: Problem) -> Tensor:
    """Truth ratios on the forget set."""
    texts = case.drawn.part("forget")
    wrong = [answered(case, problem, [t.but(answer=t.wrong[k]) for t in texts]) for k in range(len(texts[0].wrong))]
    return knowledge.truth_ratio(answered(case, problem, [t.but(answer=t.paraphrase) for t in texts]), wrong)


def once(texts: Sequence[Text]) -> list[Text]:
    """The questions about everyone's first picture."""
    return [text for text in texts if text.facts["image"].endswith(" 0")]


def blind(case: Mini, problem: Problem) -> float:
    """Exact match of the same questions without the picture."""
    texts = once(case.drawn.part("retain+forget"))
    return case.match(problem, [replace(t, facts={k: v for k, v in t.facts.items() if k != "image"}) for t in texts])


def chance(case: Mini) -> float:
    """What the commonest value of each attribute would get."""
    texts = once(case.drawn.part("retain+forget"))
    said = {name: Counter(t.facts["value"] for t in texts if t.facts["attribute"] == name)
            for name in {t.facts["attribute"] for t in texts}}  # fmt: skip
    return fmean(max(counts.values()) / counts.total() for counts in said.values())


def scores(case: Mini, problem: Problem, name: str) -> Figures:
    """All figures of one model."""
    refused = vision.refused(case.written(problem, "forget"), case.drawn.texts.refusals)
    return {
        f"{name}_match": case.match(problem, "forget"), f"{name}_ape": ape(case, problem),
        f"{name}_retain": case.match(problem, once(case.drawn.part("retain"))), f"{name}_auc": leak(case, problem),
        f"{name}_blind": blind(case, problem), f"{name}_refused": float(refused.double().mean()),
    }  # fmt: skip


# --- baselines


def baselines() -> dict[str, Stage]:
    """Ascent, difference, KL minimisation and refusals, on what is not the eyes."""
    plans = {
        "ga": methods.grad_ascent(**RATES, optimiser="adamw"),
        "gd": methods.grad_diff(**RATES, optimiser="adamw", gamma=1.0),
        "kl": methods.kl_min(**RATES, optimiser="adamw"),
        "po": methods.pref_opt_idk(**RATES, loss="po"),
    }
    return {name: plan.but(where=LANGUAGE) for name, plan in plans.items()}


@functools.cache
def unlearned(seed: int) -> Figures:
    """The original and what each baseline makes of it, at the first of its steps that has forgotten."""
    case = drawn(seed)
    start = request(case, original(case))
    found = scores(case, start, "original")
    for name, plan in baselines().items():
        changed = start.copy()
        Run(until(plan, lambda problem: case.match(problem, "forget") <= GONE, every=1), changed).go()
        found |= scores(case, changed, name) | {f"{name}_steps": changed.work["steps"]}
    ended = start.copy()
    Run(baselines()["po"], ended).go()
    last = scores(case, ended, "po_end")
    return found | {name: last[name] for name in ("po_end_refused", "po_end_retain")}


def measure(method: Callable[[], Benchmark], seed: int) -> Figures:
    """Every score of the original, of the reference and of each baseline."""
    case = drawn(seed)
    start, reference = (request(case, model) for model in (original(case), method().retrained(case)))
    same = knowledge.forget_quality(ratios(case, start), ratios(case, reference))
    found = {**unlearned(seed), **scores(case, reference, "retrained"), "chance": chance(case), "ks": same.statistic}
    return {**found, "ks_p": same.p}


CLAIM = Claim(
    says="Private facts of people who are known by their faces are extracted from the model that learned them and not "
    "from one that never did, in other words too, and nobody is known without the picture. Every baseline is limited "
    "once it has forgotten as much (exact match at most 0.05): ascent has lost the rest, and refusals, which keep the "
    "rest, are farther from the retrained model under a membership attack than gradient difference.",
    trained="60 people with faces that do not exist, 6 facts each, 3 pictures, of whom 3 go; 4 prefix tokens from a "
    "CNN, Llama of 2 blocks and width 64, 450 steps",
    method=whole,
    controls={"the original passed off as retrained": passed_off},
    measure=measure,
    holds=(
        "original_match > 0.95",
        "retrained_match < 0.2",
        "original_ape > 0.8",
        "retrained_ape < 0.2",
        "ks_p < 0.01",
        "original_auc > retrained_auc + 0.2",
        "max(original_blind, retrained_blind, ga_blind, gd_blind, kl_blind, po_blind) <= chance + 0.05",
        "max(ga_match, gd_match, kl_match, po_match) <= 0.05",
        "ga_retain < original_retain - 0.2",
        "min(po_retain, po_end_retain) > 0.95",
        "po_end_refused >= 0.8",
        "abs(po_auc - retrained_auc) > abs(gd_auc - retrained_auc)",
    ),
    changed=(
        Changed("stage one", "vision tower frozen, projector and language model trained",
                "a small CNN trained along, and frozen while forgetting",
                "it has seen no other pictures before that could have trained it"),
        Changed("pictures", "a fixed pattern, shifted, under noise",
                "the same; three pictures of a person are learned, shifted by up to a pixel, noise 0.2 of the pattern",
                "the card gives no sizes"),
        Changed("where baselines are compared", "at equal exact match",
                "at the first step with an exact match of 0.05 or less; refusals after all epochs (po_end)",
                "forgetting goes on at different speeds; refusals become fluent later. First measured on seeds 0 to 2 "
                "by looks at every fifth step, gradient difference had gone far beyond when it was seen (AUC 0.15). "
                "With looks at every step the last condition holds on seed 100 and in the mean with 101, not on 101"),
        Changed("model-judged answers, MME and POPE", "part of utility", "left out",
                "there is no judge and no general ability in the testbed"),
    ),
    because={
        "abs(po_auc - retrained_auc) > abs(gd_auc - retrained_auc)": "The last few answers hold out on some seeds "
        "while the others are pressed far below what retrained models give them: on seed 101 gradient difference needs "
        "105 steps where on seed 100 it needs 29, and its AUC ends at 0.01. The sides differ, not the distances",
    },
)  # fmt: skip
