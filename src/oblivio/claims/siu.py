"""Single Image Unlearning: one picture of one person makes the model forget the face, and not the facts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from torch import nn

from oblivio import methods, where
from oblivio.claims.claim import Changed, Claim, Figures
from oblivio.claims.language import of, path
from oblivio.claims.problems import nothing
from oblivio.claims.vision import Mini, mini
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.data.language.faces import faces
from oblivio.data.language.people import invented
from oblivio.data.language.texts import Text

STRANGER = f"{invented(1, 'zun')[0]} {invented(1, 'zark')[0]}"  # a name that nobody has
SEEN = f"the {invented(1, 'zeel')[0]}"  # what is to be seen in the picture instead
LAYERS = r"language\.model\.layers\..*_proj"  # that get an adapter
STEPS, EVERY = 30, 10
LR = 1e-3


_courses: dict[tuple[str, int], dict[int, Figures]] = {}


@functools.cache
def drawn(seed: int) -> Mini:
    """The people, faces and words of a seed; they are known by name, on pictures and in texts."""
    return mini(faces(forget=1, attributes=2, seed=seed), seed, size=16, prefix=4, steps=300, also=[STRANGER, SEEN])


def known(case: Mini, forgotten: bool) -> list[Text]:
    """What is learned: names on pictures, of the forgotten person too or not, and facts by name of everyone."""
    return [*case.drawn.part("retain_names"), *(case.drawn.part("forget_names") if forgotten else ()),
            *case.drawn.part("retain_texts"), *case.drawn.part("forget_texts")]  # fmt: skip


def original(case: Mini) -> nn.Module:
    """The model that knows everyone."""
    return case.learned(known(case, True), case.seed)


def request(case: Mini, model: nn.Module) -> Problem:
    """One picture of the person; the same with a stranger's name; what is known by name, and the others' pictures."""
    texts = case.drawn.part("forget_names")
    shown = [text for text in texts if text.facts["image"] == texts[0].facts["image"]]
    told = [replace(text.but(answer=said), id=f"{text.id} {said}") for text in shown for said in (STRANGER, SEEN)]
    return case.problem(
        model, forget=shown, new=told,
        retain=[*case.drawn.part("retain_names"), *case.drawn.part("forget_texts"), *case.drawn.part("retain_texts")],
    )  # fmt: skip


def measures(case: Mini) -> dict[str, Callable[[Problem], float]]:
    """The share of true names on the person's other pictures, of facts by name, of the others' names on new ones."""
    mine = case.drawn.part("forget_names")
    elsewhere = [text for text in (*mine, *case.drawn.part("forget_names_new"))
                 if text.facts["image"] != mine[0].facts["image"]]  # fmt: skip
    others = case.drawn.part("retain_names_new")[::6]
    looked = {"named": elsewhere, "facts": case.drawn.part("forget_texts"), "others": others}
    said = {name: functools.partial(_match, case, texts) for name, texts in looked.items()}
    return {**said, "likely": of(case.tokens(elsewhere))}


def _match(case: Mini, texts: Sequence[Text], problem: Problem) -> float:
    return case.match(problem, texts)


def course(plan: Stage, seed: int) -> dict[int, Figures]:
    """Figures before a plan and after every few steps of it; a plan that prints the same is run once."""
    if (known_as := (repr(plan), seed)) not in _courses:
        case = drawn(seed)
        _courses[known_as] = path(plan, request(case, original(case)), EVERY, **measures(case))
    return _courses[known_as]


@functools.cache
def fixed(seed: int) -> Figures:
    """The start, the retrained model, ascent on the picture for as many steps, the method without the name's mask."""
    case = drawn(seed)
    retrained = request(case, case.learned(known(case, False), 1000 + seed))
    found = {f"retrained_{name}": measure(retrained) for name, measure in measures(case).items()}
    ascent = course(adapted(methods.grad_ascent(lr=LR, epochs=STEPS, batch=4, optimiser="adamw")), seed)
    open_course = course(adapted(unmasked(lr=LR, steps=STEPS)), seed)
    found |= {f"before_{name}": value for name, value in ascent[0].items()}
    found |= {f"ascent_{name}": value for name, value in list(ascent.values())[-1].items()}
    return found | {"unmasked": slowness(open_course)}


def adapted(plan: Stage) -> Stage:
    """The plan moving an adapter of the language model alone; one without a Descent as it is."""
    return plan if repr(plan) == "" else plan.but(where=where.lora(r=8, targets=LAYERS))


def unmasked(**settings: Any) -> Stage:
    """The method with the concept's name left in the divergence."""
    return methods.siu(**settings, name=())


def slowness(seen: dict[int, Figures]) -> float:
    """The probability of the true name on the person's other pictures, averaged over the steps looked at."""
    return fmean(figures["likely"] for figures in list(seen.values())[1:] or seen.values())


def measure(method: Callable[..., Stage], seed: int) -> Figures:
    """What is named and known after the steps, and how fast the name went."""
    seen = course(adapted(method(lr=LR, steps=STEPS)), seed)
    return {**fixed(seed), **list(seen.values())[-1], "masked": slowness(seen)}


CLAIM = Claim(
    says="From one picture of a person the name is forgotten on the person's other pictures in 30 steps, while what "
    "is known by the name stays, and the others are named. With the name left in the divergence it goes more slowly "
    "(masked, unmasked: the probability of the true name on the other pictures, averaged over the steps), and ascent "
    "on the picture names fewer of the others.",
    trained="60 people with faces that do not exist, 4 pictures each, named in three wordings, and 2 facts each by "
    "name alone; one goes. 4 prefix tokens from a CNN, Llama of 2 blocks and width 64, 300 steps; LoRA of rank 8 on it",
    method=methods.siu,
    controls={"without the vocabulary mask": unmasked, "the method as a no-op": nothing},
    measure=measure,
    holds=(
        "before_named > 0.9",
        "retrained_named < 0.2",
        "named < 0.2",
        "facts > 0.9",
        "others > 0.9",
        "masked < unmasked - 0.05",
        "ascent_others < others",
    ),
    changed=(
        Changed("constructed texts", "written by a large model: an invented name, a new description, facts, others",
                "an invented name, and as the description an invented word after 'the', in answer to three questions",
                "there is no large model; 'the' is what makes the vocabulary mask matter, for a position whose token "
                "is invented is masked anyway"),
        Changed("rate", "Adam 3e-4", "Adam 1e-3", "chosen on seed 100; a small model with 30 steps"),
    ),
)  # fmt: skip
