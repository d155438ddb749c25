"""Memorisation: how much of an answer a model gives back. Functions of responses or of texts; one number a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from oblivio.audits.language.responses import Responses, numbers
from oblivio.core.errors import BadInput
from oblivio.sources.tokens import Tokens


def probability(responses: Responses) -> Tensor:
    """The geometric mean of the probabilities of an answer's tokens, ``exp(mean_i log p_i)``; shape (n,)."""
    return responses.means("log_probs").exp()


def exact_memorisation(responses: Responses) -> Tensor:
    """The share of an answer's tokens that were the likeliest, ``(1/n) sum_i [g_i = t_i]``; shape (n,)."""
    return responses.means("hits")


def extraction_strength(responses: Responses) -> Tensor:
    """``1 - k/n`` with the smallest k such that all tokens after the k-th were the likeliest; shape (n,).

    Where the last token was not, k = n and the strength is 0; common code gives 1/n then.
    """
    return numbers(row.flip(0).cumprod(0).mean() for row in responses.rows("hits"))


# --- of texts


@dataclass(frozen=True)
class Rouge:
    """ROUGE-L of one text: of the longest common subsequence of words, its share in either text and their mean."""

    precision: float
    recall: float
    f1: float


def rouge_l(written: str, true: str) -> Rouge:
    """ROUGE-L (Lin, 2004) of a text against the true one.

    Words are lower-cased runs of letters and digits, and are not stemmed, where the official evaluations stem: "writes"
    and "writing" are two words here. An empty text has 0.
    """
    ours, theirs = words(written), words(true)
    if not ours or not theirs:
        return Rouge(0.0, 0.0, 0.0)
    common = _common(ours, theirs)
    precision, recall = common / len(ours), common / len(theirs)
    return Rouge(precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0)


def rouge_each(written: Sequence[str], true: Sequence[str], figure: str = "recall") -> Tensor:
    """One figure of ``rouge_l`` (``recall``, ``precision``, ``f1``) for each pair of texts; shape (n,)."""
    return numbers(getattr(rouge_l(*pair), figure) for pair in zip(written, true, strict=True))


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits."""
    return re.findall(r"[^\W_]+", text.lower())


def _common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(theirs) + 1)
    for word in ours:
        above = row
        row = [0]
        for j, other in enumerate(theirs):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
    return row[-1]


# --- passages, as MUSE asks for them (its C1)


def beginnings(passages: Tokens, first: int, most: int, eos: int) -> tuple[list[list[int]], list[list[int]]]:
    """The first tokens of every passage, to be continued, and the ``most`` tokens that truly follow.

    Verbatim memorisation is ``rouge_each(written, true, "f1")`` of greedy continuations and these, as texts.

    Args:
        passages: rows of tokens; what is prompt in them does not matter.
        first: tokens that are given.
        most: tokens that are compared, at most.
        eos: the end-of-text token, which is not compared.

    Raises:
        BadInput: a passage has nothing after its first tokens.
    """
    prompts, continuations = [], []
    for i in range(len(passages)):
        tokens = passages.sequence(i)[0]
        tokens = tokens[:-1] if tokens[-1] == eos else tokens
        if len(tokens) <= first:
            raise BadInput(f"passage {passages.ids[i]!s} has {len(tokens)} tokens; after the first {first} nothing "
                           "follows: give fewer, or leave it out")  # fmt: skip
        prompts.append(tokens[:first])
        continuations.append(tokens[first : first + most])
    return prompts, continuations
