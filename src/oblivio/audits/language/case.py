"""Case of texts: what every model says of every text, each asked once, and only when a probe wants to know."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from oblivio.audits.language import generation
from oblivio.audits.language.responses import Responses, respond
from oblivio.audits.subjects import Subject
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.data.language.texts import Text
from oblivio.sources.tokens import Tokens

AUDITED = ("forget", "retain", "test", "holdout")  # what is asked about, where the problem has it
MOST = 400  # texts of a source; TOFU takes 300
LENGTH = 64  # tokens that a model may write, less where all true answers are shorter


class TextLook:
    """A model and what it says, kept by the name of what was asked.

    ``look["forget"]`` are its responses to these texts, ``look.written("forget")`` its own greedy answers.
    """

    def __init__(self, subject: Subject, case: TextCase) -> None:
        self.subject, self.case = subject, case
        self._responses: dict[str, Responses] = {}
        self._written: dict[str, list[str]] = {}

    def __getitem__(self, sheet: str) -> Responses:
        if sheet not in self._responses:
            self._responses[sheet] = self.respond(self.case.sheets[sheet])
        return self._responses[sheet]

    def respond(self, tokens: Tokens) -> Responses:
        """Responses to texts of a probe's own."""
        return respond(self.model, tokens, eos=self.case.eos, task=self.case.problem.task)

    def written(self, sheet: str) -> list[str]:
        """What it answers, greedily; of running texts how it goes on after their first half."""
        if sheet not in self._written:
            tokens = self.case.sheets[sheet]
            most = min(LENGTH, 2 + max(len(answer) for answer in self.case.answers(sheet)))
            self._written[sheet] = self.write(given(tokens), most)
        return self._written[sheet]

    def write(self, prompts: Sequence[Sequence[int]], most: int, **settings: Any) -> list[str]:
        """What it writes after prompts of a probe's own."""
        rows = generation.generate(self.model, prompts, eos=self.case.eos, max_new_tokens=most, **settings)
        return generation.texts(self.case.tokenizer, rows)

    @property
    def model(self) -> Any:
        """The network that is asked."""
        return self.subject.nets["model"]


@dataclass(frozen=True)
class TextCase:
    """A request about texts with all models.

    Attributes:
        problem: the request, on the original's networks.
        subjects: the models.
        sheets: texts as tokens, by name: ``forget``, and ``forget rephrased``, ``forget paraphrase`` and ``forget wrong
            0``, ... where its texts have these, and so on for every audited source.
        attacks: names of attacks that are asked for, beyond those that are always made.
    """

    problem: Problem
    subjects: Sequence[Subject]
    sheets: Mapping[str, Tokens]
    attacks: Sequence[str] = ()

    @cached_property
    def looks(self) -> list[TextLook]:
        """One for each model."""
        return [TextLook(subject, self) for subject in self.subjects]

    @property
    def targets(self) -> Mapping[str, Tokens]:
        """By these names probes say what they need."""
        return self.sheets

    @property
    def tokenizer(self) -> Any:
        """Of all models."""
        return self.problem.task.tokenizer  # type: ignore[attr-defined]

    @property
    def eos(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def references(self) -> list[TextLook]:
        """Models that never saw the forgotten texts."""
        return [look for look in self.looks if look.subject.kind == "reference"]

    def others(self, me: TextLook) -> list[TextLook]:
        """The references that ``me`` is held against: all of them, or all but itself."""
        return [look for look in self.references if look is not me]

    def wrong(self, source: str) -> list[str]:
        """The sheets with the wrong answers of a source, in order."""
        return [name for name in self.sheets if name.startswith(f"{source} wrong ")]

    def texts(self, sheet: str) -> list[Text]:
        """The texts of a sheet."""
        return self.sheets[sheet].texts

    def answers(self, sheet: str) -> list[list[int]]:
        """The tokens that are to follow what a model is given of each text."""
        tokens = self.sheets[sheet]
        return [tokens.sequence(i)[0][len(prompt) :] for i, prompt in enumerate(given(tokens))]

    def answered(self, sheet: str) -> list[str]:
        """The same as words."""
        return generation.texts(self.tokenizer, self.answers(sheet))


def given(tokens: Tokens) -> list[list[int]]:
    """What a model is given of each text: its prompt, or the first half of a running text."""
    rows = [tokens.sequence(i) for i in range(len(tokens))]
    return [row[: prompt if prompt > 1 else max(1, len(row) // 2)] for row, prompt in rows]


def gather(problem: Problem, subjects: Sequence[Subject], attacks: Sequence[str] = ()) -> TextCase:
    """Lay out all texts that models are to be asked about.

    Raises:
        BadInput: a task without a tokenizer, or forgotten rows of which no text is known.
    """
    if getattr(problem.task, "tokenizer", None) is None:
        raise BadInput("an audit of texts writes some: give the tokenizer, as Problem.causal_lm(model, tokenizer) does")
    problem = copy.copy(problem)
    problem.team = replace(problem.team, rank=0, size=1)
    sheets: dict[str, Tokens] = {}
    for name in AUDITED:
        if name in problem.sources and len(problem.sources[name]):
            sheets |= _sheets(name, _sampled(problem, name))
    return TextCase(problem, subjects, sheets, tuple(attacks))


def _sampled(problem: Problem, name: str) -> Tokens:
    source = problem.sources[name]
    if not isinstance(source, Tokens):
        raise BadInput(f"an audit of texts needs rows of tokens; {name} is {type(source).__name__}")
    if len(source) <= MOST:
        return source
    order = torch.randperm(len(source), generator=generator(problem.seed, "audit", name))
    return source.take(order[:MOST].sort().values)


def _sheets(name: str, tokens: Tokens) -> dict[str, Tokens]:
    """A source's own texts, and in the forms in which they can be asked and answered otherwise."""
    wrong = min((len(text.wrong) for text in tokens.texts), default=0)
    changes: dict[str, Callable[[Text], Text | None]] = {
        "rephrased": lambda text: text.but(prompt=text.rephrased) if text.rephrased else None,
        "paraphrase": lambda text: text.but(answer=text.paraphrase) if text.paraphrase else None,
        **{f"wrong {i}": lambda text, i=i: text.but(answer=text.wrong[i]) for i in range(wrong)},  # type: ignore[misc]
    }
    made = {f"{name} {form}": tokens.rewritten(change) for form, change in changes.items()}
    return {name: tokens, **{form: sheet for form, sheet in made.items() if sheet is not None}}
