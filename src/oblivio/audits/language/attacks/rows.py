"""What attacks share: the network beneath what is wrapped round it, a few texts of many, and rows put otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from oblivio.audits.language.case import TextCase
from oblivio.audits.probe import DoesNotApply
from oblivio.core.seeds import generator
from oblivio.core.surgery import Wrap
from oblivio.sources.tokens import Tokens


def beneath(model: nn.Module) -> nn.Module:
    """The language model beneath a Wrap, which whoever has the weights takes off; else the model itself."""
    while isinstance(model, Wrap):
        inside = getattr(model, "model", None)
        if not isinstance(inside, nn.Module):
            raise DoesNotApply(f"what {type(model).__name__} wraps is no single language model")
        model = inside
    return model


def sample(case: TextCase, tokens: Tokens, most: int, *keys: str) -> Tokens:
    """At most so many of the rows, in their order; all models are asked the same."""
    if len(tokens) <= most:
        return tokens
    order = torch.randperm(len(tokens), generator=generator(case.problem.seed, *keys))
    return tokens.take(order[:most].sort().values)


def parted(case: TextCase, few: int, least: int, attack: str) -> tuple[Tokens, Tokens]:
    """A few forgotten texts that the attacker has, a third at most, and the others, on which it is judged."""
    tokens = case.sheets["forget"]
    if len(tokens) < least:
        raise DoesNotApply(f"{len(tokens)} forgotten texts are too few to attack with some and ask for others")
    order = torch.randperm(len(tokens), generator=generator(case.problem.seed, attack, "forget"))
    few = min(few, len(tokens) // 3)
    return tokens.take(order[:few]), tokens.take(order[few:])


def fits(model: nn.Module, tokens: Tokens) -> bool:
    """Whether a model has places for all tokens of every row, as far as it says how many it has."""
    window = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return window is None or int(tokens.lengths[tokens.index].max()) <= window


def put(tokens: Tokens, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tokens:
    """The same rows with other tokens: prompts, and what is to follow them. Further columns stay, ids do not.

    ``tokens`` may be a view in which rows occur several times.
    """
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    extra = {name: values[tokens.index].cpu() for name, values in tokens.extra.items()}
    return Tokens(rows, [len(prompt) for prompt in prompts], tokens.pad, **extra).to(tokens.flat.device)
