"""Extraction: a few tokens before every prompt, searched for so that they bring answers of a few texts back.

The search is greedy coordinate gradient (A. Zou et al., "Universal and Transferable Adversarial Attacks on Aligned
Language Models", 2023), bounded to a few hundred short passes; other texts say whether what was found is general.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.audits.language.attacks.rows import beneath, fits, parted, put
from oblivio.audits.language.case import TextCase, TextLook, given
from oblivio.audits.language.memorisation import probability
from oblivio.audits.language.probes import probe
from oblivio.audits.language.responses import Responses, device_of, evaluating, respond
from oblivio.audits.probe import DoesNotApply, Value, average
from oblivio.core.seeds import generator
from oblivio.sources.tokens import Tokens

FEW, LEAST = 6, 6  # texts that are searched on, a third of them at most; and how many there must be
LENGTH, STEPS = 5, 15  # tokens of the prefix, and how often one of them is exchanged
TOP, TRIED = 32, 24  # tokens at each place that the gradient names, and how many exchanges are tried a step
EVERY = 5  # steps between looks at the other texts


@probe("gone", "brought back by a prefix found on a few forgotten texts, on the others", "task", about="outputs",
       attack="extract")  # fmt: skip
def prefix(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The probability of the other forgotten answers after a prefix of 5 tokens; what is wrapped comes off before.

    The curve is over the steps of the search, from the texts without a prefix (at 0).
    """
    few, held = parted(case, FEW, LEAST, "extract")
    search = Search(case, beneath(look.model), few)
    found = probability(search.ask(held, [[]]))
    curve = [(0, float(found.mean()))]
    for step in range(1, STEPS + 1):
        search.exchange()
        if step % EVERY == 0:
            found = probability(search.ask(held, [search.chosen]))
            curve.append((step, float(found.mean())))
    value = average(found)
    note = f"{curve[0][1]:.3f} without it"
    return Value(value.value, value.low, value.high, value.rows, curve, note)


@dataclass
class Search:
    """A prefix, and the few texts that it is to bring back."""

    case: TextCase
    model: nn.Module
    few: Tokens

    def __post_init__(self) -> None:
        get: Any = getattr(self.model, "get_input_embeddings", None)
        self.embedding = get() if get is not None else None
        if not isinstance(getattr(self.embedding, "weight", None), Tensor):
            raise DoesNotApply(f"{type(self.model).__name__} names no token embedding to follow gradients to")
        self.rng = generator(self.case.problem.seed, "extract", "search")
        self.allowed = self._allowed()
        picked = torch.randint(len(self.allowed), (LENGTH,), generator=self.rng)
        self.prefix: list[int] = self.allowed[picked].tolist()
        if not fits(self.model, self._after(self.few, [self.prefix])):
            raise DoesNotApply("the model has no places for more tokens than the texts have")
        self.without, self.best = self._score([[]]).item(), self._score([self.prefix]).item()

    def _allowed(self) -> Tensor:
        """Tokens that stand for words, in order."""
        special = set(self.case.tokenizer.all_special_ids)
        count = min(len(self.case.tokenizer), len(self.embedding.weight))  # type: ignore[union-attr]
        return torch.tensor([token for token in range(count) if token not in special])

    @property
    def chosen(self) -> list[int]:
        """The prefix, or none while it does not do better on the few."""
        return self.prefix if self.best > self.without else []

    def ask(self, tokens: Tokens, prefixes: Sequence[Sequence[int]]) -> Responses:
        """Responses to all texts after the first prefix, to all after the second, and so on."""
        return respond(self.model, self._after(tokens, prefixes), eos=self.case.eos, task=self.case.problem.task)

    def exchange(self) -> None:
        """Try exchanges of one token that the gradient names, and keep the best, if it is better."""
        places, ranks = (torch.randint(most, (TRIED,), generator=self.rng) for most in (LENGTH, TOP))
        named = self._named()
        tried = [list(self.prefix) for _ in range(TRIED)]
        for one, place, rank in zip(tried, places.tolist(), ranks.tolist(), strict=True):
            one[place] = int(named[place, rank % named.shape[1]])
        scores = self._score(tried)
        if float(scores.max()) > self.best:
            self.best, self.prefix = float(scores.max()), tried[int(scores.argmax())]

    def _score(self, prefixes: Sequence[Sequence[int]]) -> Tensor:
        """The mean log-probability of the few answers after each prefix, shape (prefixes,)."""
        return self.ask(self.few, prefixes).means("log_probs").view(len(prefixes), -1).mean(1)

    def _named(self) -> Tensor:
        """For each place the tokens that would raise the answers most, to first order; shape (LENGTH, tokens)."""
        table: Tensor = self.embedding.weight.detach()  # type: ignore[union-attr]
        rise = -(self._gradient() @ table.float().T).cpu()[:, self.allowed]
        return self.allowed[rise.topk(min(TOP, len(self.allowed)), 1).indices]

    def _gradient(self) -> Tensor:
        """Of the loss on the few texts by the embeddings of the prefix, shape (LENGTH, width)."""
        lifted: list[Tensor] = []

        def lift(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            lifted.append(out.detach().requires_grad_())
            return lifted[0]

        task, source = self.case.problem.task, self._after(self.few, [self.prefix]).to(device_of(self.model))
        batch = source.batch(torch.arange(len(source), device=device_of(self.model)))
        handle = self.embedding.register_forward_hook(lift)  # type: ignore[union-attr]
        try:
            with torch.enable_grad(), evaluating(self.model):
                loss = task.each(task.forward({"model": self.model}, "model", batch), batch).sum()
                (grad,) = torch.autograd.grad(loss, lifted)
        finally:
            handle.remove()
        start = self._start(self.few.sequence(0)[0])
        return grad[:, start : start + LENGTH].sum(0).float()

    def _after(self, tokens: Tokens, prefixes: Sequence[Sequence[int]]) -> Tokens:
        """All rows with each prefix before them, after the token that begins a text."""
        places = range(len(tokens))
        prompts, answers, starts = [], [], given(tokens)
        for prefix, i in product(prefixes, places):
            row = tokens.sequence(i)[0]
            at = self._start(row)
            prompts.append([*row[:at], *prefix, *starts[i][at:]])
            answers.append(row[len(starts[i]) :])
        return put(tokens.take([*places] * len(prefixes)), prompts, answers)

    def _start(self, row: Sequence[int]) -> int:
        return int(row[0] == getattr(self.case.tokenizer, "bos_token_id", None))
