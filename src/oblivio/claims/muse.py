"""MUSE: six ways to look at a model after documents were to go, read at one checkpoint that all methods share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from oblivio import methods
from oblivio.audits.language import memorisation
from oblivio.audits.language.generation import generate, texts
from oblivio.audits.language.membership import mia_auc, min_k, privleak
from oblivio.audits.language.responses import respond
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures
from oblivio.claims.language import Mini
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.data.language.texts import Text
from oblivio.how import clip

PEOPLE, REQUESTS = 6, 3  # who go at a request, and requests: first those of the testbed, then retained ones
READ = 200  # steps in which the models of the testbed learn the sheets beside the questions
BATCH, EPOCHS = 12, 40  # of unlearning, at most
NAME, WRITTEN, ASKED = 2, 24, 120  # tokens of a sheet that are given, those written, and retained questions asked
STAY = -(REQUESTS - 1) * PEOPLE  # of the retained people, those before are in no request
Rule: TypeAlias = Callable[[float, float], bool]


def checkpoint(known: float, level: float) -> bool:
    """The first epoch at which no more is known of what goes than a retrained model knows."""
    return known <= level


def at_once(known: float, level: float) -> bool:
    """The start, whatever it knows: another rule for everybody."""
    return True


@dataclass(frozen=True)
class Look:
    """Facts and fact sheets of a seed."""

    mini: Mini

    def corpus(self, parts: str, first: int = 0, last: int | None = None) -> list[Text]:
        """Questions about people of some parts, from the first to the last, and a sheet of each."""
        names = list(dict.fromkeys(text.group for text in self.mini.texts_of(parts)))[first:last]
        facts = [text for text in self.mini.texts_of(parts) if text.group in names]
        return [*facts, *(_sheet(name, [text for text in facts if text.group == name]) for name in names)]

    def requests(self, first: int = 0, last: int = 1) -> list[Text]:
        """What goes by some requests: the first is that of the testbed, the others are about retained people."""
        asked = [
            self.corpus("forget"),
            *(self.corpus("retain", -i * PEOPLE, _end(i)) for i in range(REQUESTS - 1, 0, -1)),
        ]
        return [text for each in asked[first:last] for text in each]

    def reads(self, model: nn.Module, parts: str) -> nn.Module:
        """The model after it has learned the sheets of the parts that it knows, and their questions again."""
        tokens = self.mini.tokens(self.corpus(parts))
        return language.learn(tokens, self.mini.tokenizer, self.mini.seed, start=model, steps=READ, lr=1e-3)

    def verbatim(self, model: Any, corpus: Sequence[Text]) -> float:
        """C1: ROUGE-L of how sheets are gone on with after the name."""
        sheets, end = self.mini.tokens([text for text in corpus if not text.prompt]), self.mini.tokenizer.eos_token_id
        prompts, true = memorisation.beginnings(sheets, NAME, WRITTEN, end)
        said = texts(self.mini.tokenizer, generate(model, prompts, eos=end, max_new_tokens=WRITTEN))
        return float(memorisation.rouge_each(said, texts(self.mini.tokenizer, true), "f1").mean())

    def knows(self, model: Any, corpus: Sequence[Text]) -> float:
        """C2 and C4: ROUGE-L recall of the value in answers to the questions: the share in which it is said."""
        asked = [text for text in corpus if text.prompt]
        tokens, end = self.mini.tokens(asked), self.mini.tokenizer.eos_token_id
        prompts = [tokens.prompt(i) for i in range(len(tokens))]
        said = texts(self.mini.tokenizer, generate(model, prompts, eos=end, max_new_tokens=4))
        return float(memorisation.rouge_each(said, [text.facts["value"] for text in asked]).mean())

    def retained(self, model: Any) -> float:
        """C4, on a part of the questions."""
        return self.knows(model, self.mini.texts_of("retain")[:ASKED])

    def auc(self, model: Any, corpus: Sequence[Text]) -> float:
        """What C3 is made of: how well min-40% tells unseen texts from those that were to go."""
        end = self.mini.tokenizer.eos_token_id
        sides = (corpus, self.corpus("holdout"))
        return mia_auc(*(min_k(respond(model, self.mini.tokens(side), eos=end)) for side in sides))

    def after(self, plan: Stage, start: Any, corpus: Sequence[Text], level: float, rule: Rule) -> nn.Module:
        """The model at the checkpoint of a plan that is given a corpus; where none comes, at the end."""
        problem = self.mini.problem(start, forget=self.mini.tokens(corpus),
                                    retain=self.mini.tokens(self.corpus("retain", 0, STAY)))  # fmt: skip
        if rule(self.knows(start, corpus), level):
            return problem.model

        def reached(now: Problem) -> bool:
            return rule(self.knows(now.model, corpus), level)

        plan = plan.but(how=clip(1.0))
        plan.until, plan.every = reached, -(-len(corpus) // BATCH)  # type: ignore[attr-defined]
        return language.after(plan, problem).model


def _end(i: int) -> int | None:
    return None if i == 1 else -(i - 1) * PEOPLE


def _sheet(name: str, facts: Sequence[Text]) -> Text:
    return Text("", " ".join([name, *(text.answer for text in facts)]), f"{name} sheet", name)


def ascent() -> Stage:
    """Gradient ascent."""
    plan: Stage = methods.grad_ascent(**language.UNLEARN, optimiser="adamw", epochs=EPOCHS)
    return plan


def npo() -> Stage:
    """NPO with the loss on what is retained."""
    plan: Stage = methods.npo(beta=1.0, retain=1.0, **language.UNLEARN, optimiser="adamw", epochs=EPOCHS)
    return plan


@functools.lru_cache(maxsize=3)
def look(seed: int) -> tuple[Look, nn.Module, nn.Module]:
    """The look of a seed, the model that learned everything and the one that never saw what goes first."""
    mini = language.mini(seed)
    made = Look(mini)
    return made, made.reads(mini.model, "retain+forget+world"), made.reads(mini.retrained(), "retain+world")


def measure(rule: Rule, seed: int) -> Figures:
    """All six criteria: of the two models, and of two methods at the checkpoint of the rule."""
    there, full, never = look(seed)
    corpus = there.requests()
    level, auc = there.knows(never, corpus), there.auc(never, corpus)
    made = {name: there.after(make(), full, corpus, level, rule) for name, make in (("ascent", ascent), ("npo", npo))}
    found: Figures = {}
    for name, model in {"full": full, "retrained": never, **made}.items():
        found |= {f"{name}_c1": there.verbatim(model, corpus), f"{name}_c2": there.knows(model, corpus),
                  f"{name}_c3": privleak(there.auc(model, corpus), auc).value,
                  f"{name}_c4": there.retained(model)}  # fmt: skip
    model = made["ascent"]
    for times in range(2, REQUESTS + 1):
        larger = there.after(ascent(), full, there.requests(0, times), level, rule)
        model = there.after(ascent(), model, there.requests(times - 1, times), level, rule)
        found |= {f"c5_{times}": there.retained(larger), f"c6_{times}": there.retained(model)}
    return found


CLAIM = Claim(
    says="Fact sheets and questions about six people are to go. By every criterion a model that learned them differs "
    "from one that never saw them. Stopped where no more is known of them than the latter knows, ascent knows less of "
    "what is retained (C4) than negative preference with a retain loss, and less after every further request (C6).",
    trained=f"{language.TRAINED}; then 200 steps on their questions and fact sheets",
    method=checkpoint,
    controls={"the start as everybody's checkpoint": at_once},
    measure=measure,
    holds=(
        "full_c1 > 0.9",
        "retrained_c1 < 0.4",
        "full_c3 < -90",
        "ascent_c2 <= retrained_c2",
        "ascent_c4 < npo_c4",
        "c6_2 < ascent_c4",
        "c6_3 < c6_2",
    ),
    changed=(
        Changed("sheets", "concatenated answers of one author", "the same after the name; beside them the questions, "
                "which are learned and go too", "the tiny models answer no question about what they only read"),
        Changed("C2", "with examples in the prompt", "without", "these models learn nothing from examples in a prompt"),
        Changed("score of C2 and C4", "ROUGE of the answer", "of the value in it", "half of the answers have the form "
                "'the ...', which is said of anyone: on seed 100 neither method came below a retrained model's 0.11"),
        Changed("C3 of the retrained model", "0", "not a condition", "it is 0 by its definition"),
        Changed("level of C2 in C5 and C6", "of a model retrained without these requests", "of the one retrained "
                "without the first", "what is never known is known alike; a claim is to run in minutes"),
        Changed("C5", "1 to 4 times the set, all methods", "2 and 3 times, ascent", "a claim is to run in minutes"),
    ),
)  # fmt: skip
