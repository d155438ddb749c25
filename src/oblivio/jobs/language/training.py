"""Training small language models on texts, kept under all that determines the result."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from oblivio.core.descent import Descent
from oblivio.core.files import read_tensors, write_tensors
from oblivio.core.opt import adamw, cosine
from oblivio.core.problem import Problem
from oblivio.core.run import Run, Watch, environment
from oblivio.data.language.texts import Texts
from oblivio.jobs import cache
from oblivio.networks import language
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM
from oblivio.terms import fit

STEPS, LR, BATCH = 600, 3e-3, 48


def learn(
    tokens: Tokens, tokenizer: Any, seed: int, *, network: str = "llama", steps: int = STEPS, lr: float = LR,
    batch: int = BATCH, start: nn.Module | None = None, watch: Sequence[Watch] = (), **options: Any,
) -> nn.Module:  # fmt: skip
    """A model that learned these rows: AdamW, the rate falling along a cosine. Kept under all that determines it.

    Args:
        tokens: what is learned.
        tokenizer: its length is the size of the vocabulary.
        seed: of first weights and batches.
        network: ``llama``, ``gpt2`` or ``mixtral``.
        steps: of the optimiser.
        lr: its rate at first.
        batch: rows a step.
        start: a model of this kind to go on from, which is copied; default: a new one.
        watch: called after every step.
        options: of the network.
    """
    made: Any = getattr(language, network)(len(tokenizer), seed=seed, **options)
    if start is not None:
        made.load_state_dict(start.state_dict())
    facts = {
        "rows": _digest(tokens), "network": [network, len(tokenizer), options], "seed": seed, "code": _code(),
        "training": [steps, lr, batch], "start": None if start is None else _weights(start), **environment(),
    }  # fmt: skip
    path = cache.root().parent / "language" / f"{cache.key(facts)}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            problem = Problem(made, task=CausalLM(), seed=seed, train=tokens)
            Run(_training(steps, lr, batch), problem, watch=watch).go()
            write_tensors(path, dict(problem.model.named_parameters()))
    with torch.no_grad():
        for name, value in read_tensors(path).items():
            made.get_parameter(name).copy_(value)
    model: nn.Module = made.eval()
    return model


def word_tokens(texts: Texts) -> Any:
    """A tokenizer of all words that a set of texts may be asked and answered in."""
    return language.word_tokenizer(_words(texts))


def byte_tokens(texts: Texts, size: int) -> Any:
    """A tokenizer of ``size`` byte pairs at most, learned from the texts."""
    return language.bpe_tokenizer(_words(texts), size)


def _words(texts: Texts) -> Iterator[str]:
    yield "Q A"
    yield from texts.refusals
    for part in texts.parts.values():
        for text in part:
            yield from (text.prompt, text.rephrased, text.answer, text.paraphrase, *text.wrong)


def _training(steps: int, lr: float, batch: int) -> Descent:
    return Descent(fit("train"), opt=adamw(lr, wd=0.01, schedule=cosine), steps=steps, batch=batch)


@functools.cache
def _code() -> str:
    """What the code of a training computes, by the bits that three steps of it give: other code, other models."""
    rows = Tokens([[1, 2, 3, 4], [2, 3, 5, 6, 7], [3, 1, 2]], [1, 2, 1])
    problem = Problem(language.llama(8, layers=1, width=8, heads=2, ff=8), task=CausalLM(), train=rows)
    Run(_training(3, LR, 2), problem).go()
    return _weights(problem.model)


def _digest(tokens: Tokens) -> str:
    return hashlib.sha256(json.dumps([tokens.sequence(i) for i in range(len(tokens))]).encode()).hexdigest()


def _weights(model: nn.Module) -> str:
    hashed = hashlib.sha256()
    for value in model.state_dict().values():
        hashed.update(value.detach().cpu().numpy().tobytes())
    return hashed.hexdigest()
