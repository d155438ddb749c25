"""Fluency: whether what a model writes is still language, and how well it still reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from oblivio.audits.language.memorisation import words
from oblivio.audits.language.responses import Responses

WEIGHTS = {2: 2 / 3, 3: 4 / 3}  # by the length of the n-grams, as RWKU has them


def ngram_entropy(text: str, n: int) -> float:
    """The entropy, in bits, of the distribution of a text's n-grams of words; 0 where there is none."""
    parts = words(text)
    grams = Counter(zip(*(parts[i:] for i in range(n)), strict=False))
    shares = torch.tensor(list(grams.values()), dtype=torch.float64) / max(1, grams.total())
    return float(-(shares * shares.log2()).sum()) + 0.0


def fluency(texts: Sequence[str], weights: Mapping[int, float] = WEIGHTS) -> Tensor:
    """The mean of weighted n-gram entropies of each text, shape (n,): low where a model repeats itself."""
    each = [[weight * ngram_entropy(text, n) for n, weight in weights.items()] for text in texts]
    return torch.tensor(each, dtype=torch.float64).reshape(len(texts), len(weights)).mean(1)


def entropy(responses: Responses) -> Tensor:
    """The mean entropy, in nats, of the next-token distributions along each row, shape (n,).

    On rows that the model itself wrote it is the entropy of its generation: near 0 where it is sure of all it says,
    near the logarithm of the vocabulary where it is destroyed.
    """
    return responses.means("entropies")


def perplexity(responses: Responses) -> float:
    """``exp`` of the mean negative log-likelihood of all tokens of a held-out text together."""
    return float((-torch.cat(responses.rows("log_probs")).mean()).exp())
