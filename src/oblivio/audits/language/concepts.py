"""Concept vectors: which directions a feed-forward network adds for a concept, and whether they are still there.

A value vector is what one unit of a feed-forward network adds to the residual stream: a column of its last matrix.
Behaviour can change while these stay, and then what was known is soon known again (Hong et al., "Intrinsic Evaluation
of Unlearning Using Parametric Knowledge Traces", 2024).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from oblivio.audits.language.responses import device_of, evaluating
from oblivio.core.errors import BadInput
from oblivio.edits.ablate import columns
from oblivio.networks.language.parts import blocks
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM, answer_log_probs, mean

Place: TypeAlias = tuple[int, int]  # block and unit of a value vector
TOP = 200  # tokens that a vector stands for
SIZE = 256  # rows of a pass


def value_vectors(model: nn.Module) -> list[Tensor]:
    """The value vectors of every block, each (units, width). Raises BadInput for experts or other layers."""
    return [columns(model, i).detach() for i in range(len(blocks(model)))]


def projection(model: Any, vectors: Tensor) -> Tensor:
    """What vectors (n, width) add to the logits of the vocabulary, up to a positive factor a position; (n, vocabulary).

    The scale of the last norm is folded into the output matrix; its shift, the same for all vectors, is left out.
    """
    norm, output = final_norm(model), model.get_output_embeddings().weight.detach()
    logits: Tensor = (vectors if norm is None else vectors * norm) @ output.T
    return logits


def final_norm(model: nn.Module) -> Tensor | None:
    """The scale of the norm between the blocks and the output, None where there is no such norm."""
    inner = model.get_submodule(blocks(model)[0].rpartition(".")[0].rpartition(".")[0])
    found = [getattr(layer, "weight", None) for layer in inner.children()]
    scales = [weight.detach() for weight in found if isinstance(weight, Tensor) and weight.dim() == 1]
    return scales[-1] if scales else None


def top_tokens(model: nn.Module, vectors: Tensor, k: int = TOP) -> Tensor:
    """The k tokens that each vector raises most, T(v); (n, k), or the whole vocabulary where it is smaller."""
    logits = projection(model, vectors)
    return logits.topk(min(k, logits.shape[1]), dim=1).indices


def likeness(tokens: Tensor, frequencies: Mapping[int, float]) -> Tensor:
    """How much of a text on a concept the tokens of each vector cover, by the frequency of its words; (n,), 0 to 1."""
    weight = torch.zeros(max(int(tokens.max()), *frequencies) + 1)
    for token, count in frequencies.items():
        weight[token] = count
    return weight[tokens].sum(1) / weight.sum()


@dataclass(frozen=True)
class Traces:
    """Value vectors of two models, one entry a place.

    Attributes:
        cosine: between the vectors.
        jaccard: of their tokens: those common to both, of those of either.
        distance: between the vectors, in their own unit.
        kept: the share of the concept's tokens in T(v) that are in T(v') still; NaN where T(v) holds none.
    """

    cosine: Tensor
    jaccard: Tensor
    distance: Tensor
    kept: Tensor


def compare(
    before: nn.Module, after: nn.Module, places: Sequence[Place], *, k: int = TOP, concept: Collection[int] = ()
) -> Traces:
    """Whether unlearning changed these vectors.

    Args:
        before: the model that knew.
        after: the model asked about.
        places: of the vectors.
        k: tokens that a vector stands for; far fewer than the vocabulary, or all have the same.
        concept: tokens of the concept.
    """
    old, new = (_at(model, places) for model in (before, after))
    pairs = [
        (set(a), set(b)) for a, b in zip(*(top_tokens(m, v, k).tolist() for m, v in ((before, old), (after, new))),
                                         strict=True)
    ]  # fmt: skip
    wanted = set(concept)
    kept = [len(a & b & wanted) / len(a & wanted) if a & wanted else torch.nan for a, b in pairs]
    return Traces(
        torch.cosine_similarity(old, new),
        torch.tensor([len(a & b) / len(a | b) for a, b in pairs]),
        (old - new).norm(dim=1),
        torch.tensor(kept),
    )


def drops(model: nn.Module, rows: Tokens, places: Sequence[Place], noise: float | None = None) -> Tensor:
    """How far the mean probability of answers falls where each vector alone is zero, or has noise added; (places,).

    Args:
        model: stays as it is.
        rows: questions with their answers.
        places: of the vectors.
        noise: its deviation in every entry (the paper's is 0.1); None is zero in place of the vector.
    """
    whole = _probability(model, rows)
    found = []
    for block, unit in places:
        with _without(model, block, unit, noise):
            found.append(whole - _probability(model, rows))
    return torch.tensor(found)


def rank(model: nn.Module, concept: Tokens, others: Tokens, noise: float | None = None) -> list[Place]:
    """All places, first those whose vector answers on the concept need most and others least: the causal test."""
    places = [(i, j) for i, vectors in enumerate(value_vectors(model)) for j in range(len(vectors))]
    apart = drops(model, concept, places, noise) - drops(model, others, places, noise)
    return [places[i] for i in apart.argsort(descending=True, stable=True).tolist()]


def _at(model: nn.Module, places: Sequence[Place]) -> Tensor:
    vectors = value_vectors(model)
    for block, unit in places:
        if not (0 <= block < len(vectors) and 0 <= unit < len(vectors[block])):
            raise BadInput(f"there is no vector {unit} in block {block}; the model has {len(vectors)} blocks of "
                           f"{len(vectors[0])} vectors")  # fmt: skip
    return torch.stack([vectors[block][unit] for block, unit in places])


@contextlib.contextmanager
def _without(model: nn.Module, block: int, unit: int, noise: float | None) -> Iterator[None]:
    """One vector is zero or has noise for the time being."""
    row = columns(model, block)[unit].data
    before = row.clone()
    generator = torch.Generator().manual_seed(block * 1_000_003 + unit)
    if noise is None:
        row.zero_()
    else:
        row += noise * torch.randn(row.shape, generator=generator).to(row)
    try:
        yield
    finally:
        row.copy_(before)


def _probability(model: nn.Module, rows: Tokens) -> float:
    """The mean over rows of the geometric mean of the probabilities of an answer's tokens."""
    task, found = CausalLM(), []
    with torch.no_grad(), evaluating(model):
        for batch in rows.to(device_of(model)).batches(SIZE):
            out = task.forward({"model": model}, "model", batch)
            found.append(mean(*answer_log_probs(out, batch["y"])).exp())
    return float(torch.cat(found).double().mean())
