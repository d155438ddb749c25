"""Generation: what a model writes after a prompt. A text depends on its own prompt and seed, not on its company."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.audits.language.responses import device_of, evaluating
from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator

SIZE = 64  # prompts of a batch
TINY = torch.finfo(torch.float32).tiny


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    eos: int | Collection[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    size: int = SIZE,
) -> list[list[int]]:
    """Continue every prompt; the tokens that were added, without the end and what follows it.

    Prompts of one length share a batch, so that none is padded: models differ in what they make of padding. Only the
    model's own distribution decides: settings of sampling or against repetition that come with a model are not used.

    Args:
        model: a causal language model of Transformers, or a Wrap that has ``generate``.
        prompts: token ids, at least one each.
        eos: the token, or tokens, that end a text.
        max_new_tokens: the most that is written.
        temperature: 0 writes the likeliest token at every place; above 0 tokens are drawn, by a generator for each
            prompt that depends on the seed and the prompt alone (and, of equal prompts, on which of them it is).
        seed: of the draws. PyTorch's own generator is neither used nor moved.
        size: prompts of a batch.

    Raises:
        BadInput: a model that cannot generate, an empty prompt, a negative temperature, or more tokens than the
            model has places for.
    """
    if not callable(getattr(model, "generate", None)):
        raise BadInput(f"{type(model).__name__} has no generate(); give a causal language model, or a Wrap that has it")
    if temperature < 0 or max_new_tokens < 1:
        raise BadInput(f"temperature={temperature:g}, max_new_tokens={max_new_tokens}; give 0 or more, and 1 or more")
    _fit(model, prompts, max_new_tokens)
    ends, keys = [eos] if isinstance(eos, int) else sorted(eos), list(_keys(prompts))
    written: list[list[int]] = [[] for _ in prompts]
    with torch.no_grad(), evaluating(model):
        for places in _alike(prompts, size):
            draws = [_draws(temperature, [generator(seed, "write", *keys[i]) for i in places])] if temperature else []
            out = _continued(model, [prompts[i] for i in places], ends, max_new_tokens, draws)
            for i, tokens in zip(places, out.tolist(), strict=True):
                stop = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
                written[i] = tokens[:stop]
    return written


def texts(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    """Token ids as texts, without special tokens and outer blanks."""
    return [tokenizer.decode(list(row), skip_special_tokens=True).strip() for row in rows]


def _fit(model: nn.Module, prompts: Sequence[Sequence[int]], more: int) -> None:
    window = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise BadInput(f"prompt {i} is empty; give at least the token that begins a text")
        if window is not None and len(prompt) + more > window:
            raise BadInput(f"prompt {i} has {len(prompt)} tokens, and {more} may follow; the model has {window} "
                           "places: cut the prompt, or lower max_new_tokens")  # fmt: skip


def _keys(prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """Each prompt's tokens, after how many equal prompts came before."""
    seen: Counter[tuple[int, ...]] = Counter()
    for prompt in map(tuple, prompts):
        yield (seen[prompt], *prompt)
        seen[prompt] += 1


def _alike(prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Places of prompts of the same length, at most ``size`` together."""
    lengths: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        lengths.setdefault(len(prompt), []).append(i)
    for places in lengths.values():
        yield from (places[start : start + size] for start in range(0, len(places), size))


def _continued(model: Any, prompts: list[Sequence[int]], ends: list[int], more: int, processors: list[Any]) -> Tensor:
    """What was added to prompts of the same length, shape (prompts, tokens)."""
    from transformers import GenerationConfig, LogitsProcessorList

    plain = GenerationConfig(
        do_sample=False, num_beams=1, temperature=1.0, top_p=1.0, top_k=50, repetition_penalty=1.0,
        no_repeat_ngram_size=0, max_new_tokens=more, eos_token_id=ends, pad_token_id=ends[0],
    )  # fmt: skip
    given = torch.tensor([list(prompt) for prompt in prompts], device=device_of(model))
    out: Tensor = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), generation_config=plain,
        logits_processor=LogitsProcessorList(processors),
    )  # fmt: skip
    return out[:, given.shape[1] :]


def _draws(temperature: float, generators: list[torch.Generator]) -> Any:
    """A step of Transformers' decoding that adds Gumbel noise: the likeliest of what comes out is a draw.

    Each row has its own generator, which one call of ``multinomial`` for the whole batch could not give it.
    """
    from transformers import LogitsProcessor

    class Draws(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            waits = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=g) for g in generators])
            return scores.float() / temperature - waits.clamp(min=TINY).log().to(scores.device)

    return Draws()
