"""Refusals hide the true answer and leave it, or push it below what ignorance is; either way it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from oblivio import methods
from oblivio.audits.language.generation import generate
from oblivio.audits.language.knowledge import forget_quality
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.data.language.people import candidates
from oblivio.data.language.texts import Text

UNKNOWN = 40  # names of which the model was taught to say that it does not know
WRITTEN = 8  # tokens of a greedy answer


@dataclass(frozen=True)
class Refusing:
    """The testbed whose models can refuse: those that learned all, and one that never saw what is to go."""

    mini: language.Mini

    @property
    def start(self) -> nn.Module:
        """What is asked to forget."""
        return self.mini.learned("retain+forget+world+unknown", self.mini.seed)

    @property
    def retrained(self) -> nn.Module:
        """What it should become."""
        return self.mini.learned("retain+world+unknown", 1000 + 10 * self.mini.seed)

    def refusals(self, model: nn.Module, part: str = "forget") -> float:
        """The share of greedy answers that are refusals."""
        rows, known = self.mini.tokens(part), [answer[:-1] for answer in self.mini.refusals]
        prompts = [rows.prompt(i) for i in range(len(rows))]
        end = int(self.mini.tokenizer.eos_token_id)
        said = generate(model, prompts, eos=end, max_new_tokens=WRITTEN)
        return sum(answer in known for answer in said) / len(said)


def refusing(seed: int) -> Refusing:
    """The testbed of a seed, with 40 names that are answered by a refusal."""
    return Refusing(language.mini(seed, unknown=UNKNOWN))


def values(mini: language.Mini, model: Any, texts: Sequence[Text]) -> Tensor:
    """Mean log-probabilities of the 20 values of each text's attribute, the true one first; shape (20, texts)."""
    answers = [candidates(text) for text in texts]
    asked = [mini.tokens(texts, answer=[each[k] for each in answers]) for k in range(len(answers[0]))]
    return torch.stack([language.probabilities(model, tokens).log() for tokens in asked])


def first(likely: Tensor) -> float:
    """The share of facts whose true value is the likeliest of the 20; by chance it is 0.05."""
    return float((likely[1:] < likely[0]).all(0).double().mean())


def truth(likely: Tensor) -> Tensor:
    """The truth ratio of every fact: how much likelier the other 19 values are than the true one."""
    return (likely[1:].mean(0) - likely[0]).exp()


def measure(method: Method, seed: int) -> Figures:
    """Both losses on the testbed of a seed, beside NPO and a model that never learned what is to go."""
    case = refusing(seed)
    mini, start, retrained = case.mini, case.start, case.retrained
    problem, unseen = mini.problem(start), values(mini, retrained, mini.texts.part("forget"))
    found = {
        "before": language.probability(start, mini.tokens("forget")),
        "retrained_first": first(unseen),
    }
    plans = {
        "dpo": method(loss="dpo"), "po": method(loss="po"), "alone": method(loss="po", alpha=0.0), "npo": ascent(),
    }  # fmt: skip
    for name, plan in plans.items():
        done = language.after(plan, problem)
        found |= {f"{name}_{what}": value for what, value in figures(case, done, unseen).items()}
    return found


def figures(case: Refusing, done: Problem, unseen: Tensor) -> Figures:
    """What is measured of an unlearned model; ``unseen`` are the values of one that never learned the facts."""
    mini = case.mini
    likely = values(mini, done, mini.texts.part("forget"))
    return {
        "forget": language.probability(done, mini.tokens("forget")),
        "retain": language.probability(done, mini.tokens("retain")),
        "refusals": case.refusals(done.model),
        "first": first(likely),
        "p": forget_quality(truth(likely), truth(unseen)).p,
    }


def ascent(**settings: Any) -> Stage:
    """NPO in its place, which gives up the true answer and says nothing of refusing."""
    plan: Stage = methods.npo(**methods.spec("npo").defaults("causal_lm") | {"epochs": 20})
    return plan


CLAIM = Claim(
    says="60 steps towards refusals, by preference (dpo) or by fine-tuning (po), make the model refuse on the "
    "questions to forget and keep what is retained. Yet the true value stays the likeliest of the 20 (first, by chance "
    "0.05) on a good part of them after fine-tuning, and truth ratios are far from those of a model that never learned "
    "them (p of a KS test). Without retained rows (alone) the rest is lost.",
    trained=f"{language.TRAINED}, which also learned to answer 'i do not know' for {UNKNOWN} unknown names",
    method=methods.pref_opt_idk,
    controls={"NPO": ascent},
    measure=measure,
    holds=(
        "dpo_refusals > 0.9",
        "po_refusals > 0.9",
        "dpo_retain > 0.95",
        "po_retain > 0.95",
        "po_first > retrained_first + 0.1",
        "po_p < 0.01",
        "alone_retain < po_retain - 0.2",
    ),
    changed=(
        Changed("knowledge that is left", "'clearly above chance on at least part of the items'",
                "first of 20 on a share of the facts that is 0.1 above a retrained model's", "a figure that can fail"),
        Changed("truth ratio", "the paraphrase against wrong answers in its form",
                "the answer against the other 19 values in its form",
                "models learn one form of each fact; in the other even the start passes (p 0.21, seed 100)"),
    ),
)  # fmt: skip
