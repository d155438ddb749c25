"""Knowledge: whether a model prefers the truth, whether it does so as a retrained one, and what use it still has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from oblivio.audits.language.memorisation import probability, rouge_each
from oblivio.audits.language.responses import Responses
from oblivio.core.errors import BadInput

# --- truth against wrong answers; every function takes one Responses for each of the wrong answers


def choice(true: Responses, wrong: Sequence[Responses]) -> Tensor:
    """``P(true) / (P(true) + sum_w P(w))`` with probabilities per token; shape (n,). It is a share where all vanish."""
    every = torch.cat([true.means("log_probs")[None], _wrong(true, wrong)])
    return every.softmax(0)[0]


def extent(true: Responses, wrong: Sequence[Responses]) -> Tensor:
    """The extent of knowledge: ``P(true) / (P(true) + P(wrong))``, of the wrong ones the geometric mean; shape (n,)."""
    return (true.means("log_probs") - _wrong(true, wrong).mean(0)).sigmoid()


def truth_ratio(paraphrase: Responses, wrong: Sequence[Responses]) -> Tensor:
    """The geometric form, for the Kolmogorov-Smirnov test: ``exp(l(paraphrase) - mean_w l(w))``; shape (n,).

    ``l`` is the mean negative log-likelihood of an answer's token: above 1 the wrong answers are the likelier ones.
    They must have the surface form of the paraphrase, else this measures fluency.
    """
    return (_wrong(paraphrase, wrong).mean(0) - paraphrase.means("log_probs")).exp()


def arithmetic_truth_ratio(paraphrase: Responses, wrong: Sequence[Responses]) -> Tensor:
    """The arithmetic form, for utility: ``mean_w P(w) / P(paraphrase)``; shape (n,). The two forms do not mix."""
    mean = _wrong(paraphrase, wrong).logsumexp(0) - math.log(len(wrong))
    return (mean - paraphrase.means("log_probs")).exp()


def truth_kept(ratio: Tensor) -> float:
    """The score of rows that are to be known: ``mean_i max(0, 1 - R_i)`` of arithmetic truth ratios."""
    return float((1 - ratio).clamp(min=0).mean())


def truth_forgotten(ratio: Tensor) -> float:
    """The score of rows that are to be forgotten: ``mean_i min(R_i, 1 / R_i)``, 1 where truth is no likelier."""
    return float(torch.minimum(ratio, 1 / ratio).mean())


def _wrong(true: Responses, wrong: Sequence[Responses]) -> Tensor:
    """Mean log-probabilities of wrong answers, shape (answers, n)."""
    if not wrong:
        raise BadInput("there are no wrong answers to hold the true one against")
    if any(len(each) != len(true) for each in wrong):
        raise BadInput(f"wrong answers to {[len(each) for each in wrong]} questions, true ones to {len(true)}: give "
                       "the same questions in the same order")  # fmt: skip
    return torch.stack([each.means("log_probs") for each in wrong])


# --- as one that never learned it


@dataclass(frozen=True)
class Quality:
    """Forget quality, with what it stands on.

    Attributes:
        p: of the two-sided two-sample Kolmogorov-Smirnov test; what is reported as the quality.
        statistic: the greatest distance of the two distribution functions.
        rows: truth ratios of the model.
        reference_rows: truth ratios of the retrained one.
    """

    p: float
    statistic: float
    rows: int
    reference_rows: int


def forget_quality(ratios: Tensor, retrained: Tensor) -> Quality:
    """Whether truth ratios of a model could be those of a retrained one: a high p says that nothing tells them apart.

    A destroyed model has a high p too. Never report it without utility.

    Args:
        ratios: ``truth_ratio`` on the forget set, shape (n,).
        retrained: the same of a model that never saw it, shape (m,).

    Raises:
        BadInput: no ratios of one of the two, or some that are not numbers.
    """
    from scipy.stats import ks_2samp

    if not len(ratios) or not len(retrained):
        raise BadInput(f"a test needs truth ratios of both models; there are {len(ratios)} and {len(retrained)}")
    if ratios.isnan().any() or retrained.isnan().any():
        raise BadInput("some truth ratios are not numbers: true and wrong answers have probability 0 alike; leave "
                       "these rows out on both sides, and say so")  # fmt: skip
    found = ks_2samp(ratios.numpy(), retrained.numpy())
    return Quality(float(found.pvalue), float(found.statistic), len(ratios), len(retrained))


# --- utility


@dataclass(frozen=True)
class Utility:
    """Model utility and the figures that it is the harmonic mean of."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


def model_utility(parts: Mapping[str, float]) -> Utility:
    """The harmonic mean of component utilities: 0 as soon as one is.

    Raises:
        BadInput: none, or one that is negative or not a number.
    """
    bad = {name: value for name, value in parts.items() if not value >= 0}
    if bad or not parts:
        raise BadInput(f"utilities must be numbers from 0 up; there are {bad or 'none'}")
    if min(parts.values()) == 0:
        return Utility(0.0, dict(parts))
    return Utility(len(parts) / sum(1 / value for value in parts.values()), dict(parts))


def utilities(
    name: str,
    answer: Responses,
    paraphrase: Responses,
    wrong: Sequence[Responses],
    written: Sequence[str],
    true: Sequence[str],
    *,
    choices: bool = False,
) -> dict[str, float]:
    """The three components of one set in TOFU's model utility: probability, ROUGE-L recall, truth ratio.

    Args:
        name: of the set; it begins the names of the components.
        answer: responses to the true answers.
        paraphrase: to the true answers in the form of the wrong ones; the same as ``answer`` where that is their form.
        wrong: to the wrong answers.
        written: greedy answers.
        true: true answers.
        choices: take probabilities among the answers, as on sets that are not about the invented authors.
    """
    likely = choice(answer, wrong) if choices else probability(answer)
    return {
        f"{name}_probability": float(likely.mean()),
        f"{name}_rouge": float(rouge_each(written, true).mean()),
        f"{name}_truth_ratio": truth_kept(arithmetic_truth_ratio(paraphrase, wrong)),
    }


# --- questions with solved examples before them (MUSE's C2 and C4)


def few_shot(question: str, solved: Sequence[tuple[str, str]]) -> str:
    """A prompt of solved questions and one that is open. Knowledge is the ROUGE-L of its continuation, ``cut``."""
    shown = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in solved)
    return f"{shown}Question: {question}\nAnswer:"


def cut(written: str, at: str = "Question") -> str:
    """What was written before the model began a question of its own."""
    return written.partition(at)[0].strip()
