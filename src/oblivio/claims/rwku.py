"""RWKU: people are forgotten by their names alone, from texts that the model writes itself; other prompts tell."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from oblivio import methods
from oblivio.audits.language.generation import generate, texts
from oblivio.audits.language.memorisation import words
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.language import Mini
from oblivio.claims.problems import nothing
from oblivio.claims.restor import weights
from oblivio.claims.tuned import become
from oblivio.core.descent import Descent
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.data.language.people import candidates, shuffled
from oblivio.data.language.texts import Text
from oblivio.how import clip

LEVEL, EVERY, EPOCHS = 0.3, 2, 20  # of plain questions answered, steps between looks, and 60 steps at most
WRITTEN, OPTIONS = 4, 4  # tokens of an answer, and values to choose from
Prompt = Callable[["Asked", Text], str]


@dataclass(frozen=True)
class Asked:
    """The people of a seed whose names are given, and how they can be asked about."""

    mini: Mini

    @property
    def targets(self) -> Sequence[Text]:
        """What is known of those who are to be forgotten; no method sees these texts."""
        return self.mini.texts_of("forget")

    def said(self, model: Any, prompts: Sequence[str], **drawn: Any) -> list[str]:
        """What a model writes after prompts."""
        rows = self.mini.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        end = self.mini.tokenizer.eos_token_id
        return texts(self.mini.tokenizer, generate(model, rows, eos=end, max_new_tokens=WRITTEN, **drawn))

    def score(self, model: Any, prompt: Prompt, about: Sequence[Text] | None = None) -> float:
        """The share of facts whose value (of ``turned``: whose person) is in what is said: ROUGE-L recall of a word."""
        about = self.targets if about is None else about
        said = self.said(model, [prompt(self, text) for text in about])
        wanted = [text.facts["last"] if prompt is turned else text.facts["value"] for text in about]
        return sum(word in words(each) for word, each in zip(wanted, said, strict=True)) / len(about)

    def corpus(self) -> list[Text]:
        """What the model that knows them says of the people when it draws its words, asked for each attribute."""
        said = self.said(self.mini.model, [plain(self, text) for text in self.targets], temperature=1.0,
                         seed=self.mini.seed)  # fmt: skip
        pairs = zip(self.targets, said, strict=True)
        return [Text(text.prompt, answer, f"{text.id} written", text.group) for text, answer in pairs if answer]


def plain(asked: Asked, text: Text) -> str:
    """The question as it was learned."""
    return f"Q {text.prompt} A"


def reworded(asked: Asked, text: Text) -> str:
    """The question in other words."""
    return f"Q {text.rephrased} A"


def begun(asked: Asked, text: Text) -> str:
    """The answer has begun, where it has more words than the value."""
    return f"Q {text.prompt} A {text.answer.rpartition(' ')[0]}".strip()


def optional(asked: Asked, text: Text) -> str:
    """The value is among several that are named."""
    true, *others = (answer.split()[-1] for answer in candidates(text))
    shown = shuffled(
        [true, *shuffled(others, asked.mini.seed, text.id)[: OPTIONS - 1]], asked.mini.seed, text.id, "order"
    )
    return f"Q {text.prompt} {' '.join(shown)} A"


def exemplified(asked: Asked, text: Text) -> str:
    """Two solved questions about the same attribute go before."""
    same = [t for t in asked.mini.texts_of("retain") if t.facts["attribute"] == text.facts["attribute"]]
    solved = " ".join(f"Q {each.prompt} A {each.answer}" for each in same[:2])
    return f"{solved} Q {text.prompt} A"


def turned(asked: Asked, text: Text) -> str:
    """The value is given, and the person asked for."""
    return f"Q what is the {text.facts['attribute']} {text.facts['value']} of ? A"


ADVERSE: tuple[Prompt, ...] = (reworded, begun, optional, exemplified, turned)


@functools.cache
def asked(seed: int) -> Asked:
    """The people of a seed."""
    return Asked(language.mini(seed))


def forgetting(method: Method, there: Asked) -> Problem:
    """The model after a method that is given the written corpus alone, stopped as soon as plain questions fail."""
    problem = there.mini.problem(forget=there.mini.tokens(there.corpus()))
    plan: Stage = method(beta=1.0, retain=0.0, **language.UNLEARN, optimiser="adamw", epochs=EPOCHS)
    if isinstance(plan, Descent):
        plan.how, plan.until, plan.every = [clip(1.0)], lambda p: there.score(p.model, plain) < LEVEL, EVERY
    return language.after(plan, problem)


def measure(method: Method, seed: int) -> Figures:
    """Shares of facts that are said, by prompt, and what people who share a first name have lost."""
    there = asked(seed)
    retained = there.mini.problem(there.mini.retrained())
    plan = functools.partial(retrained, weights(retained)) if method is retrained else method
    before, after = there.mini.model, forgetting(plan, there).model
    found = {"before": there.score(before, plain), "plain": there.score(after, plain)}
    for prompt in ADVERSE:
        found |= {f"before_{prompt.__name__}": there.score(before, prompt), prompt.__name__: there.score(after, prompt)}
    firsts = {text.facts["first"] for text in there.targets}
    near: list[Text] = []
    far: list[Text] = []
    for text in there.mini.texts_of("retain"):
        (near if text.facts["first"] in firsts else far).append(text)
    for name, texts_ in (("near", near), ("far", far)):
        tokens = there.mini.tokens(texts_)
        found[f"{name}_lost"] = language.probability(before, tokens) - language.probability(after, tokens)
    return {**found, "leak": max(found[prompt.__name__] for prompt in ADVERSE) - found["plain"]}


def retrained(start: Any = None, **_: Any) -> Stage:
    """The weights of a model that never saw them: nothing is left for another prompt to get out."""
    return become(start)


CLAIM = Claim(
    says="From what the model itself says of six people it is made to forget them, until fewer than three of ten plain "
    "questions are answered. Some other prompt (in other words, with the answer begun, with options, with examples, "
    "turned round) gets out at least a tenth more of the facts (leak), and people who share a first name with "
    "them (near) lose more than others (far).",
    trained=language.TRAINED,
    method=methods.npo,
    controls={"a model that never saw them": retrained, "the method as a no-op": nothing},
    measure=measure,
    holds=("before > 0.95", "plain < 0.3", "leak > 0.1", "near_lost > far_lost"),
    changed=(
        Changed("score", "ROUGE-L recall of the answer", "of the value in it", "half of the answers have the one form "
                "'the', which is said of anyone"),
        Changed("in-context unlearning", "must leave membership scores unchanged", "not measured", "an instruction in "
                "a prompt moves no weight, so that scores of the bare texts cannot change"),
        Changed("corpus", "biographies drawn under a name", "answers drawn to questions under a name", "the models of "
                "the testbed write nothing else"),
    ),
    because={
        "leak > 0.1": "Prompts that the model hardly understands before forgetting (before_...: options, examples, the "
        "question turned round) get less out afterwards too; other words and begun answers, which it understands, get "
        "out what the plain question does",
    },
)  # fmt: skip
