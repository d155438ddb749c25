"""Dual process: temporary forgetting of embeddings leaves a model that tells rare words by their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.tuned import Piece, host
from oblivio.core.descent import Descent
from oblivio.core.opt import adamw
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import generator
from oblivio.core.source import Batch
from oblivio.sources.tokens import IGNORED
from oblivio.tasks.language import CausalLM, mean
from oblivio.terms import fit

COP, MASK, FIRST = 0, 1, 2  # the copula, what is to be filled in, and the first word
EACH, HELD = 100, 20  # words of a class that are trained, and that are not
ZIPF, AMBIGUOUS, TAIL = 1.5, 0.1, 0.1  # exponent; share of words of both roles; share of the rarest
MIXED = 5  # the rank of the first word of both roles
STEPS, BATCH, LR = 2500, 128, 1e-3
EVERY, UNTIL = 100, 1200
ASKED = 500  # texts of a probe


class Masked(CausalLM):
    """A word is predicted where it stands, from both sides."""

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What the encoder is called with: it has no cache."""
        return {"input_ids": batch["x"]}

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        losses = F.cross_entropy(out.flatten(0, 1), batch["y"].flatten(), ignore_index=IGNORED, reduction="none")
        return mean(losses.view_as(batch["y"]), batch["y"] != IGNORED)

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        """1 where all that was asked for is right."""
        return ((out.argmax(2) == batch["y"]) | (batch["y"] == IGNORED)).all(1).float()


@dataclass(frozen=True)
class Words:
    """The words of the two classes, each in the order of how often they come, and a generator."""

    rng: torch.Generator

    def drawn(self, kind: int, n: int) -> Tensor:
        """Words of a class by Zipf's law; an ambiguous one stands in half of the cases for one of the other class."""
        rank = torch.multinomial(torch.arange(1, EACH + 1) ** -ZIPF, n, replacement=True, generator=self.rng)
        both = (rank % round(1 / AMBIGUOUS) == MIXED) & (torch.rand(n, generator=self.rng) < 0.5)
        return FIRST + torch.where(both, 1 - kind, kind) * EACH + rank

    def rare(self, kind: int, n: int) -> Tensor:
        """The rarest words of a class, each as often."""
        few = round(EACH * TAIL)
        return FIRST + (kind + 1) * EACH - 1 - torch.randint(few, (n,), generator=self.rng)

    def frequent(self, kind: int, n: int) -> Tensor:
        """The most frequent words of one role alone, each as often."""
        rank = torch.randint(MIXED, (n,), generator=self.rng)
        return FIRST + kind * EACH + rank

    def unknown(self, kind: int, n: int) -> Tensor:
        """Words that are never trained."""
        return FIRST + 2 * EACH + kind * HELD + torch.randint(HELD, (n,), generator=self.rng)

    def texts(self, n: int, draw: Callable[[int, int], Tensor], switched: bool = False) -> dict[str, Tensor]:
        """``COP adjective noun`` or ``noun COP adjective``, a query, and what is asked for.

        Asked for an adjective the answer is it three times; for a noun the adjective, and the noun twice. ``switched``:
        the words of each class in the place of the other.
        """
        noun, adjective = draw(int(switched), n), draw(1 - int(switched), n)
        before, about = (torch.rand(n, generator=self.rng) < 0.5 for _ in range(2))
        cop = torch.full((n,), COP)
        said = torch.where(before, torch.stack([cop, adjective, noun]), torch.stack([noun, cop, adjective]))
        asked = torch.where(about, adjective, noun)
        answer = torch.where(about, torch.stack([adjective] * 3), torch.stack([adjective, noun, noun]))
        x = torch.cat([said, asked[None], torch.full((3, n), MASK)]).T
        y = torch.cat([torch.full((4, n), IGNORED), answer]).T
        return {"x": x.contiguous(), "y": y.contiguous()}


def network(seed: int) -> nn.Module:
    """An encoder of three layers of width 64, its embeddings drawn with deviation 0.02."""
    config = BertConfig(
        vocab_size=FIRST + 2 * (EACH + HELD), hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=7, type_vocab_size=1, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = BertForMaskedLM(config)
    return model


_done: dict[tuple[str, int], Figures] = {}  # by what a plan prints


def trained(piece: Piece, seed: int) -> Figures:
    """Exact match on every probe after training with a piece; each training once a process."""
    plan = piece(Descent(fit("train"), opt=adamw(LR), steps=STEPS, batch=BATCH))
    key = (repr(plan), seed)
    if key not in _done:
        words = Words(generator(seed, "dual"))
        sources: dict[str, Any] = {
            "train": words.texts(STEPS * BATCH, words.drawn),
            "seen": words.texts(ASKED, words.drawn),
            "tail": words.texts(ASKED, words.rare),
            "tail_switch": words.texts(ASKED, words.rare, switched=True),
            "switch": words.texts(ASKED, words.frequent, switched=True),
            "holdout": words.texts(ASKED, words.unknown),
        }
        problem = Problem(network(seed), task=Masked(), seed=seed, **sources)
        Run(plan, problem).go()
        _done[key] = {name: problem.score(name) for name in sources if name != "train"}
    return _done[key]


def measure(method: Method, seed: int) -> Figures:
    """Every probe after ordinary training, and with embeddings drawn anew for a while or to the end."""
    arms = {"vanilla": host(), "temporary": method(every=EVERY, until=UNTIL), "active": method(every=EVERY, until=None)}
    return {f"{arm}_{name}": v for arm, piece in arms.items() for name, v in trained(piece, seed).items()}


CLAIM = Claim(
    says="A model whose embeddings were drawn anew for a while tells a rare word in the place of the other class by "
    "its place, which one trained as usual does not; both know rare words where they belong, and both go by what they "
    "remember of a frequent word.",
    trained="texts of seven words, half of them COP adjective noun, half noun COP adjective, words by Zipf's law with "
    "exponent 1.5; an encoder of 3 layers of width 64, AdamW at 1e-3, 2500 steps of 128",
    method=methods.dual_process,
    controls={"embeddings never drawn anew": host},
    measure=measure,
    holds=(
        "vanilla_tail > 0.95",
        "temporary_tail > 0.95",
        "temporary_tail_switch - vanilla_tail_switch > 0.3",
        "vanilla_seen > 0.99",
        "temporary_seen > 0.99",
        "temporary_switch < 0.2",
        "vanilla_switch < 0.2",
    ),
    because={
        "temporary_tail_switch - vanilla_tail_switch > 0.3": "Ordinary training tells a rare word by its place in 0.42 "
        "to 0.81 of the cases here, where the card's prototype had 0.21, so that there is little room above. Tested: "
        "with input and output embeddings apart, on seed 100, the order is even reversed (0.27 against 0.83)",
        "temporary_switch < 0.2": "What is remembered of frequent words does not come back wholly in the 1300 steps "
        "after the last draw. Not tested with more steps",
    },
    changed=(Changed("training accuracy", "1.0", "above 0.99, on fresh texts", "ambiguous words come in it"),),
)
