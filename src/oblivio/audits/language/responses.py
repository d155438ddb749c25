"""Responses: what one pass of a language model over answers found, token by token. Metrics are functions of it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.problem import PASS, Problem
from oblivio.core.source import Ids, Source
from oblivio.core.surgery import Wrap
from oblivio.core.task import Task
from oblivio.sources.tokens import IGNORED
from oblivio.tasks.language import CausalLM, ahead

BUDGET = 4096  # tokens of a batch, padding included; fixed, since it can change last bits
SLICE = 1024  # of these, whose next-token distributions are held at once


@dataclass(frozen=True)
class Responses:
    """What a model gave on the tokens that count, on the CPU. Neither prompts nor padding are in it.

    Rows lie one behind the other; ``rows`` splits them, and leaves the end-of-text token of each out: metrics of a
    short answer change much with it, so that one convention has to hold for all.

    Attributes:
        log_probs: of each token under teacher forcing, shape (tokens,).
        hits: whether it was the likeliest.
        entropies: of the model's next-token distribution at its place, in nats. Less this number is the mean of the
            log-probability under that distribution.
        variances: of the log-probability under that distribution.
        ends: whether it is the end-of-text token that closes a row.
        lengths: tokens of each row, its end included, shape (n,).
        ids: of the rows.
    """

    log_probs: Tensor
    hits: Tensor
    entropies: Tensor
    variances: Tensor
    ends: Tensor
    lengths: Tensor
    ids: Ids

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, name: str) -> list[Tensor]:
        """One attribute as a tensor of doubles a row, without the end-of-text tokens.

        Raises:
            BadInput: a row has no other token.
        """
        counts = [len(ends) - int(ends.sum()) for ends in self.ends.split(self.lengths.tolist())]
        if 0 in counts:
            empty = self.ids[counts.index(0)]
            raise BadInput(f"the row with the id {empty!s} has no token but its end; there is nothing to measure")
        return list(getattr(self, name)[~self.ends].double().split(counts))

    def means(self, name: str) -> Tensor:
        """The mean of one attribute over each row's tokens, shape (n,)."""
        return numbers(row.mean() for row in self.rows(name))


def numbers(values: Iterable[Tensor | float]) -> Tensor:
    """One number a row, shape (n,)."""
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def respond(
    model: nn.Module | Problem,
    source: Source | str,
    *,
    eos: int | Collection[int],
    task: Task | None = None,
    budget: int = BUDGET,
) -> Responses:
    """Run a model once over every row of a source: teacher forcing, evaluation mode, no gradient.

    Rows of like length share a batch, so that little is padding; the results stand in the order of the rows.

    Args:
        model: a causal language model, a Wrap (then what it serves), or a Problem (then its model and task, and the
            rows are booked).
        source: rows of tokens, such as ``Tokens``; the name of one where a Problem is given.
        eos: the token, or tokens, that end a text.
        task: makes the inputs of a model from a batch; default CausalLM.
        budget: tokens of a batch.

    Raises:
        BadInput: a name without a problem, or outputs that are no logits of shape (n, L, V).
    """
    if isinstance(model, Problem):
        task, source = task or model.task, model.source(source)
        model.count(source.name, len(source))
        model = model.model
    if isinstance(source, str):
        raise BadInput(f"{source!r} names a source of a problem; give the problem, or the source itself")
    source, task = source.to(device_of(model)), task or CausalLM()
    lengths, found = _lengths(source), [torch.empty(0)] * len(source)
    with torch.no_grad(), evaluating(model):
        for rows in _batches(lengths, budget):
            batch = source.batch(rows.to(device_of(model)))
            columns, counts = _measured(task.forward(serving(model), "model", batch), batch["y"], _ends(eos))
            for row, part in zip(rows.tolist(), columns.split(counts.tolist()), strict=True):
                found[row] = part
    flat = torch.cat(found) if found else torch.empty(0, 5)
    log_probs, hits, entropies, variances, ends = flat.unbind(1)
    sizes = torch.tensor([len(part) for part in found], dtype=torch.long)
    return Responses(log_probs, hits.bool(), entropies, variances, ends.bool(), sizes, np.asarray(source.ids))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in evaluation mode, and afterwards as they were."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def serving(model: nn.Module) -> Any:
    """The model as a task calls it: of a Wrap, what it serves."""
    return {"model": model.predict if isinstance(model, Wrap) else model}


def device_of(model: nn.Module) -> torch.device:
    """Where the first weight of the model lies."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _ends(eos: int | Collection[int]) -> list[int]:
    return [eos] if isinstance(eos, int) else sorted(eos)


def _lengths(source: Source) -> Tensor:
    """Of every row, the tokens up to the last that counts; shape (n,)."""
    found = [torch.empty(0, dtype=torch.long)]
    for batch in source.batches(PASS):
        counts = batch["y"] != IGNORED
        found.append((counts * torch.arange(1, counts.shape[1] + 1, device=counts.device)).amax(1).cpu())
    return torch.cat(found)


def _batches(lengths: Tensor, budget: int) -> Iterator[Tensor]:
    """Places of rows, the longest first, as many as fill the budget when padded to the first of them."""
    order = lengths.argsort(descending=True, stable=True)
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _measured(out: Tensor, y: Tensor, eos: list[int]) -> tuple[Tensor, Tensor]:
    """The five columns of all tokens that count, shape (tokens, 5) on the CPU, and how many each row has."""
    if out.dim() != 3 or out.shape[:2] != y.shape:
        raise BadInput(f"the model gave {tuple(out.shape)} for tokens of shape {tuple(y.shape)}; it must give logits "
                       "of shape (rows, tokens, vocabulary)")  # fmt: skip
    target, counts = ahead(y)
    logits, wanted = out[:, :-1][counts], target[counts]
    parts = [_described(*each) for each in zip(logits.split(SLICE), wanted.split(SLICE), strict=True)]
    last = counts & (counts.cumsum(1) == counts.sum(1, keepdim=True))
    ends = (torch.isin(target, torch.tensor(eos, device=y.device)) & last)[counts]
    return torch.cat([torch.cat(parts), ends[:, None].float()], 1).cpu(), counts.sum(1).cpu()


def _described(logits: Tensor, target: Tensor) -> Tensor:
    """Log-probability, hit, entropy and variance; shape (tokens, 4). Half precision would drown the last two."""
    log_p = logits.float().log_softmax(1)
    p, finite = log_p.exp(), log_p.clamp(min=torch.finfo(torch.float32).min)  # a forbidden token adds 0, not NaN
    mean = (p * finite).sum(1)
    variance = torch.where(p > 0, p * (finite - mean[:, None]).square(), 0).sum(1)
    taken = log_p.gather(1, target[:, None])[:, 0]
    return torch.stack([taken, (log_p.argmax(1) == target).float(), -mean, variance], 1)
