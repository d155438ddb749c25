"""The tiny testbed of the claims on language models: people who do not exist, and a Llama of 0.19 million weights.

It is ``tofu_mini`` of the card of TOFU: 54 people to retain and 6 to forget with six facts each, 20 people of the
world, who are learned too and never used as retain data, and 6 who are never learned. Models are trained once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run, Watch
from oblivio.data.language.encoding import encode
from oblivio.data.language.people import people
from oblivio.data.language.texts import Text, Texts
from oblivio.jobs.language.training import learn as learn
from oblivio.jobs.language.training import word_tokens as word_tokens
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM, answer_log_probs, mean

TRAINED = "people who do not exist (54 retained, 6 forgotten, 20 of the world); Llama, 4 blocks of width 64, 600 steps"
UNLEARN: dict[str, Any] = {"lr": 3e-4, "batch": 12}  # of the checks: AdamW, no decay, clipped to 1
SIZE = 256  # rows of a pass
Figures: TypeAlias = dict[str, float]
Measure: TypeAlias = Callable[[Problem], float]


@dataclass(frozen=True)
class Mini:
    """Texts, their tokenizer, and the models of one seed."""

    texts: Texts
    tokenizer: Any
    seed: int
    network: str = "llama"

    def texts_of(self, part: str) -> Sequence[Text]:
        """The texts of a part, or of several joined by ``+``."""
        return self.texts.part(part)

    def tokens(
        self, part: str | Sequence[Text], *, rephrased: bool = False, answer: str | int | Sequence[str] = "answer"
    ) -> Tokens:
        """Questions and answers of a part as tokens.

        Args:
            part: of the texts, or texts.
            rephrased: ask in other words.
            answer: ``answer``, ``paraphrase``, the number of a wrong one, or the answers themselves.
        """
        texts = self.texts.part(part) if isinstance(part, str) else part
        answers = [_answer(text, answer, i) for i, text in enumerate(texts)]
        asked = [
            text.but(prompt=text.rephrased if rephrased else None, answer=said)
            for text, said in zip(texts, answers, strict=True)
        ]
        return encode(asked, self.tokenizer)

    @property
    def model(self) -> nn.Module:
        """The model that learned all that is to be known: retain, forget and world."""
        return self.learned("retain+forget+world", self.seed)

    def retrained(self, k: int = 0) -> nn.Module:
        """The k-th model that never saw what is to be forgotten."""
        return self.learned("retain+world", 1000 + 10 * self.seed + k)

    def learned(self, parts: str, seed: int, **settings: Any) -> nn.Module:
        """A model that learned these parts."""
        return learn(self.tokens(parts), self.tokenizer, seed, network=self.network, **settings)

    def problem(self, model: nn.Module | None = None, **sources: Any) -> Problem:
        """The request to forget, put to a model (default: the one that learned all); ``sources`` come beside."""
        given = {"forget": self.tokens("forget"), "retain": self.tokens("retain"), **sources}
        problem = Problem(
            self.model if model is None else model, task=CausalLM(self.tokenizer), seed=self.seed, **given
        )
        problem.records["refusals"] = self.refusals
        return problem

    @property
    def refusals(self) -> list[list[int]]:
        """Ways to say that one does not know, as tokens with their end."""
        return [self.written(words) for words in self.texts.refusals]

    def written(self, words: str) -> list[int]:
        """An answer as tokens with its end."""
        return [*self.tokenizer(words, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]


def _answer(text: Text, which: str | int | Sequence[str], i: int) -> str:
    if isinstance(which, int):
        return text.wrong[which]
    return str(getattr(text, which)) if isinstance(which, str) else which[i]


def mini(seed: int = 0, network: str = "llama", **options: Any) -> Mini:
    """The testbed of a seed; ``options`` are those of the generator of people."""
    texts = people(seed=seed, **options)
    return Mini(texts, word_tokens(texts), seed, network)


# --- unlearning and measuring


def after(plan: Stage, problem: Problem, *, watch: Sequence[Watch] = ()) -> Problem:
    """A copy of the problem after a plan."""
    changed = problem.copy()
    Run(plan, changed, watch=watch).go()
    return changed


def path(plan: Stage, problem: Problem, every: int = 10, **measures: Measure) -> dict[int, Figures]:
    """Figures before a plan (at 0) and after every so many steps of it."""
    changed = problem.copy()
    found = {0: {name: measure(changed) for name, measure in measures.items()}}

    def look(run: Run, *_: Any) -> None:
        if run.steps % every == 0:
            with run.problem.uncounted():
                found[run.steps] = {name: measure(run.problem) for name, measure in measures.items()}

    Run(plan, changed, watch=(look,)).go()
    return found


def first(course: Mapping[int, Figures], figure: str, below: float) -> Figures:
    """The figures where one first falls below a level; those of the end, where it never does."""
    return next((f for f in course.values() if f[figure] < below), list(course.values())[-1])


def probabilities(model: Any, tokens: Tokens) -> torch.Tensor:
    """exp(mean log p) over the tokens of each answer, its end among them; shape (rows,)."""
    problem = model if isinstance(model, Problem) else Problem(model, task=CausalLM(), rows=tokens)

    def likely(nets: Any, batch: Any) -> torch.Tensor:
        return mean(*answer_log_probs(problem.served(nets, batch), batch["y"])).exp()

    with torch.no_grad():
        return problem.tabulate(tokens, likely, SIZE)


def probability(model: Any, tokens: Tokens) -> float:
    """The mean probability of the answers, as TOFU has it; ``model`` may be a problem."""
    return float(probabilities(model, tokens).double().mean())


def of(tokens: Tokens) -> Measure:
    """The mean probability of these answers, as a measure of ``path``."""
    return lambda problem: probability(problem, tokens)
