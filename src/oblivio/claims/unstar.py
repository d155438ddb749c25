"""UnSTAR: one fact is replaced also where it is asked for otherwise, and the person's other facts stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.pref_opt_idk import first, values
from oblivio.core.plan import Stage
from oblivio.data.language.people import candidates
from oblivio.data.language.texts import Text

HELD_OUT = "what about the {attribute} of {name} ?"  # a form that neither training nor the method sees
FACTS = 4  # facts a seed, each of another person, each forgotten from the start


def asked(text: Text) -> Text:
    """A fact with wrong answers in both forms, of one and the same other value."""
    other = candidates(text)[1]
    value = next(word for word in other.split() if word != "the")
    return replace(text, wrong=(value, f"the {value}"))


def held_out(text: Text) -> Text:
    """The fact asked for in the form that is held out."""
    return text.but(prompt=HELD_OUT.format(attribute=text.facts["attribute"], name=text.group))


def measure(method: Method, seed: int) -> Figures:
    """Means over several facts, each of another person."""
    mini = language.mini(seed)
    texts = mini.texts.part("forget")
    chosen = [next(t for t in texts if t.group == who) for who in list(dict.fromkeys(t.group for t in texts))[:FACTS]]
    plans = {"": method(), "plain_": method(rephrase=False), "ascent_": ascent()}
    found = [each(mini, plans, text) for text in chosen]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def each(mini: language.Mini, plans: dict[str, Stage], text: Text) -> Figures:
    """One fact, forgotten by each of the plans."""
    own = [other for other in mini.texts.part("forget") if other.group == text.group and other.id != text.id]
    rows = {"own": mini.tokens(own), "others": mini.tokens("retain")}
    problem = mini.problem(forget=mini.tokens([asked(text)]))
    found = {"before": _first(mini, problem, text), "retrained": _first(mini, mini.retrained(), text)}
    for name, plan in plans.items():
        done = language.after(plan, problem)
        found[f"{name}first"] = _first(mini, done, text)
        found |= {f"{name}{part}": language.probability(done, tokens) for part, tokens in rows.items()}
    return found


def _first(mini: language.Mini, model: Any, text: Text) -> float:
    """Whether the true value is the likeliest of the 20 in the form that is held out: 1 or 0."""
    return first(values(mini, model, [held_out(text)]))


def ascent(**settings: Any) -> Stage:
    """Gradient ascent on the fact in its place."""
    plan: Stage = methods.grad_ascent(**methods.spec("grad_ascent").defaults("causal_lm"))
    return plan


CLAIM = Claim(
    says=f"One fact of one person, for {FACTS} people in turn, each from the start: after the rounds the true value is "
    "not the likeliest of the 20 (first: the share of facts for which it is) where it is asked for in a form that was "
    "held out; the person's 5 other facts and other people's stay. Without rephrased questions (plain) it stays the "
    "likeliest more often, and ascent costs the other 5 more.",
    trained=language.TRAINED,
    method=methods.unstar,
    controls={"ascent": ascent},
    measure=measure,
    holds=(
        "before > 0.7",
        "first <= 0",
        "own > 0.9",
        "others > 0.95",
        "plain_first > first",
        "ascent_own < own",
    ),
    changed=(
        Changed("facts", "one", f"{FACTS} a seed, each of another person", "one fact gives 0 or 1"),
        Changed("rationales", "written by the model, as are questions and substitutes", "none",
                "a model of 0.19 million weights writes none; the card's check has templates instead"),
    ),
    because={
        "first <= 0": "On seed 2 one of four facts keeps the true value first in the held-out form; a retrained "
        "model has"
        "as much by chance on seeds 0 and 1.",
        "plain_first > first": "The rounds without rewording give the same bits: the facts are solved in the "
        "first round, before any"
        "rewording is met.",
    },
)  # fmt: skip
