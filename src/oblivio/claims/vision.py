"""The tiny testbed of the claims on vision-language models: pictures, questions about them, a Llama with eyes.

Models are trained once and kept, under all that determines them.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from oblivio.audits.language import vision
from oblivio.audits.language.generation import texts as decoded
from oblivio.core.descent import Descent
from oblivio.core.files import read_tensors, write_tensors
from oblivio.core.opt import adamw, cosine
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run, environment
from oblivio.data.language.faces import REPHRASED
from oblivio.data.language.pictures import IMAGE, Pictured
from oblivio.data.language.texts import Text
from oblivio.jobs import cache
from oblivio.networks.language import word_tokenizer
from oblivio.networks.language.vision import seeing
from oblivio.sources.tokens import Tokens
from oblivio.tasks.vision_language import VisionLanguage
from oblivio.terms import fit

LANGUAGE = "model.* !model.eyes.*"  # what forgets: all but the eyes, as the vision tower is frozen in the papers
LR, BATCH, MOST = 3e-3, 48, 6  # of a training; tokens of an answer at most


@dataclass(frozen=True)
class Mini:
    """Pictures and texts, their tokenizer, and the models of one seed.

    ``size``: pixels of a side; ``prefix``: tokens a picture; ``steps``: of a training.
    """

    drawn: Pictured
    tokenizer: Any
    seed: int
    size: int
    prefix: int
    steps: int

    def tokens(self, part: str | Sequence[Text]) -> Tokens:
        """A part, several joined by ``+``, or texts, as tokens."""
        return self.drawn.encode(part, self.tokenizer, count=self.prefix)

    def learned(self, part: str | Sequence[Text], seed: int) -> nn.Module:
        """A model that learned these, from first weights and batches of this seed."""
        made = seeing(len(self.tokenizer), self.tokenizer.convert_tokens_to_ids(IMAGE), size=self.size,
                      prefix=self.prefix, seed=seed)  # fmt: skip
        tokens = self.tokens(part)
        facts = {
            "rows": cache.digest(tokens), "network": [len(self.tokenizer), self.size, self.prefix], "seed": seed,
            "training": [self.steps, LR, BATCH], "code": _code(), **environment(),
        }  # fmt: skip
        path = cache.root().parent / "language" / f"{cache.key(facts)}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                problem = Problem(made, task=VisionLanguage(), seed=seed, train=tokens)
                Run(_training(self.steps), problem).go()
                write_tensors(path, dict(problem.model.named_parameters()))
        with torch.no_grad():
            for name, value in read_tensors(path).items():
                made.get_parameter(name).copy_(value)
        return made.eval()

    def problem(self, model: nn.Module, **sources: Any) -> Problem:
        """A request put to a model; sources are parts, texts or tokens."""
        rows: dict[str, Any] = {
            n: each if isinstance(each, Tokens) else self.tokens(each) for n, each in sources.items()
        }
        return Problem(model, task=VisionLanguage(self.tokenizer), seed=self.seed, **rows,
                       records={"refusals": [self.said(words) for words in self.drawn.texts.refusals]})  # fmt: skip

    def said(self, words: str) -> list[int]:
        """An answer as tokens with its end."""
        return [*self.tokenizer(words, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]

    def written(self, problem: Problem, part: str | Sequence[Text]) -> list[str]:
        """Greedy answers."""
        rows = vision.answers(problem, self.tokens(part), eos=self.tokenizer.eos_token_id, most=MOST)
        return decoded(self.tokenizer, rows)

    def match(self, problem: Problem, part: str | Sequence[Text]) -> float:
        """The share of private keywords in the greedy answers."""
        texts = self.drawn.part(part) if isinstance(part, str) else part
        return float(vision.keyword_match(self.written(problem, texts), keywords(texts)).mean())


def mini(drawn: Pictured, seed: int, *, size: int, prefix: int, steps: int, also: Sequence[str] = ()) -> Mini:
    """The testbed of drawn pictures; ``also``: further words that the tokenizer is to know."""
    words = ["Q A", IMAGE, *also, *REPHRASED, *drawn.texts.refusals]
    for texts in drawn.texts.parts.values():
        for text in texts:
            words += [text.prompt, text.rephrased, text.answer, text.paraphrase, *text.wrong]
    return Mini(drawn, word_tokenizer(words), seed, size, prefix, steps)


def keywords(texts: Sequence[Text]) -> list[list[str]]:
    """The private words of each answer."""
    return [[text.facts["value"]] for text in texts]


def until(plan: Stage, reached: Callable[[Problem], bool], every: int = 5) -> Stage:
    """A copy of a plan, each Descent of which ends where this is so, looked at every so many steps."""
    plan = copy.deepcopy(plan)
    for _, part in walk(plan):
        if isinstance(part, Descent):
            part.until, part.every = reached, every
    return plan


def _training(steps: int) -> Descent:
    return Descent(fit("train"), opt=adamw(LR, schedule=cosine), steps=steps, batch=BATCH)


@functools.cache
def _code() -> str:
    """What the code of a training computes, by the bits that three steps of it give: other code, other models."""
    image = torch.linspace(-1, 1, 48).view(3, 1, 4, 4)
    rows = Tokens([[1, 2, 3, 4], [1, 2, 5, 6, 7], [1, 3, 2]], [1, 2, 1], image=image)
    model = seeing(8, 1, size=4, prefix=1, layers=1, width=8, heads=2, ff=8, hidden=2)
    problem = Problem(model, task=VisionLanguage(), train=rows)
    Run(_training(3), problem).go()
    values = [w.detach().numpy().tobytes() for w in problem.weights().values()]
    return hashlib.sha256(b"".join(values)).hexdigest()
