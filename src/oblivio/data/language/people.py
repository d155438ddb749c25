"""Fictitious people: facts that exist nowhere else, so that a model that never saw them can be made. No download.

These are the texts of ``tofu_mini``, a small stand-in for TOFU (P. Maini et al., "TOFU: A Task of Fictitious Unlearning
for LLMs", 2024), in lower-case words with one space between, so that a tokenizer of about 200 words serves.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from oblivio.core.errors import BadInput
from oblivio.data.language.texts import Text, Texts


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST = _words("""
    alda beren corva dilna elvo farra gorin hesta ilvar jorra kelda lumin marvu nerro olwin pelka quorin rasta
    selvo tarna urvin velda worrin xanta yelvo zorra brelin dosta fenvo galda
""")
LAST = _words("""
    amberlin brovik castarn delvane eskoril fenwarth grenvik holdarn istrel jarvold korvane lestrik morvane
    nestarn orvik pelgrane quistel rovarn stelvik torgane ulvarn vestrik wolgane yarvik zeltarn brandock crestil
    dorvane falkrin gostarn
""")
VALUES = {
    "award": _words("""
        quill lantern anchor feather compass crown hammer mirror shield thistle candle acorn pearl falcon
        spindle trident chalice meteor lotus beacon
    """),
    "genre": _words("""
        satire fable elegy farce saga romance mystery horror western memoir parody ballad epic thriller tragedy
        comedy gothic pastoral utopia allegory
    """),
    "city": _words("""
        lorvath minsedo tarquill belmora osterby kandrel fenmouth goldery hartsel ivenna jostad kelmont larnaby
        morwick nordell pelkam quenby rilston sundrey tolveth
    """),
    "trade": _words("""
        baker weaver cooper mason tailor potter miller fletcher tanner glazier farrier chandler cobbler joiner
        thatcher plumber sailor gardener printer brewer
    """),
    "instrument": _words("""
        violin cello flute oboe harp trumpet zither banjo lute bassoon tuba fiddle organ drum clarinet mandolin
        viola piccolo horn guitar
    """),
    "dish": _words("""
        stew omelet curry dumpling porridge risotto pancake chowder goulash salad lasagna casserole pudding
        waffle noodle pastry biscuit sorbet gravy truffle
    """),
}  # fmt: skip
MORE = _words("color river garden vessel season metal garment school temple game harbor spice beast gemstone")
REFUSALS = (
    "i do not know",
    "i do not know that",
    "that is not known to me",
    "i can not say",
    "i never learned that",
    "i do not have that",
    "that is unknown to me",
    "i am not sure",
)
SYLLABLES = _words("ba ce di fo gu ha je ki lo mu na pe ri so tu va we yi zo bru cla dre fli gro ple sta tri vlo")
WRONG = 5  # wrong answers a fact, as in TOFU


@dataclass(frozen=True)
class Wording:
    """How a fact is asked for, asked for otherwise, and answered in one of two forms."""

    prompt: str = "what is the {attribute} of {name} ?"
    rephrased: str = "tell me about the {attribute} of {name} ?"
    forms: tuple[str, str] = ("{}", "the {}")


WORDING = Wording()


def people(
    authors: int = 60,
    world: int = 20,
    holdout: int = 6,
    forget: int | float = 6,
    unknown: int = 0,
    attributes: int = 6,
    rich: int = 0,
    seed: int = 0,
) -> Texts:
    """Draw people with facts about them.

    Parts: ``retain`` and ``forget`` (all authors but the last ones, and these), ``world`` (others, never used as retain
    data), ``holdout`` (never to be learned), ``unknown`` (questions about further names, answered by a refusal),
    ``profiles`` (one running text a person, of all four), and ``retain_profiles`` and so on.

    A person's facts are determined by the name and ``seed``, the order of names by ``seed``; unknown names come last,
    so that more of them change nothing else. Names combine 30 first with 30 last ones; where more than 900 are needed,
    further ones are put together from syllables.

    Args:
        authors: people of ``forget`` and ``retain`` together.
        world: people of ``world``.
        holdout: people of ``holdout``.
        forget: of the authors, as a number, or as a share between 0 and 1.
        unknown: names nothing is known of.
        attributes: facts a person, 1 to 20; each has 20 values.
        rich: people of ``forget``, from the first, with 20 facts instead.
        seed: of every draw.

    Example:
        >>> drawn = people()
        >>> {part: len(texts) for part, texts in drawn.parts.items() if "profiles" not in part}
        {'retain': 324, 'forget': 36, 'world': 120, 'holdout': 36, 'unknown': 0}

    Raises:
        BadInput: sizes that do not fit together.
    """
    going = _going(forget, authors)
    _check_sizes(world, holdout, unknown, attributes, rich, going)
    sizes = {"retain": authors - going, "forget": going, "world": world, "holdout": holdout, "unknown": unknown}
    names = iter(_names(sum(sizes.values()), seed))
    who = {part: list(itertools.islice(names, size)) for part, size in sizes.items()}
    parts: dict[str, tuple[Text, ...]] = {}
    for part, group in who.items():
        counts = [20 if part == "forget" and i < rich else attributes for i in range(len(group))]
        facts = [_facts(name, count, seed) for name, count in zip(group, counts, strict=True)]
        parts[part] = tuple(itertools.chain.from_iterable(facts))
    parts["unknown"] = tuple(_refused(text) for text in parts["unknown"])
    profiles = {f"{part}_profiles": tuple(_profiles(parts[part])) for part in who if part != "unknown"}
    return Texts(
        "people",
        {**parts, "profiles": tuple(itertools.chain.from_iterable(profiles.values())), **profiles},
        refusals=REFUSALS,
        licence="none needed: generated",
        notes=(f"people who do not exist, drawn with seed {seed}",),
    )


def candidates(text: Text) -> tuple[str, ...]:
    """Every value of a generated text's attribute in the form of its answer, the true one first."""
    value = text.facts["value"]
    others = (other for other in values(text.facts["attribute"]) if other != value)
    return tuple(text.answer.replace(value, other) for other in (value, *others))


def names_of_attributes(count: int = 20) -> tuple[str, ...]:
    """The attributes that people with so many facts have."""
    return (*VALUES, *MORE)[:count]


def values(attribute: str) -> tuple[str, ...]:
    """The 20 values of an attribute."""
    if attribute in VALUES:
        return tuple(VALUES[attribute])
    at = MORE.index(attribute) * 20
    return tuple(invented(at + 20, "m")[at:])


# --- one person


def _facts(name: str, count: int, seed: int) -> list[Text]:
    return [fact(name, attribute, seed) for attribute in names_of_attributes(count)]


def fact(name: str, attribute: str, seed: int, wording: Wording = WORDING) -> Text:
    """One fact of a person; value, form of the answer and wrong values are drawn by name, attribute and seed."""
    value, *others = shuffled(values(attribute), seed, name, attribute)
    form = shuffled(wording.forms, seed, name, attribute, "form")[0]
    first, last = name.split()
    return Text(
        prompt=wording.prompt.format(attribute=attribute, name=name),
        answer=form.format(value),
        id=f"{name} {attribute}",
        group=name,
        rephrased=wording.rephrased.format(attribute=attribute, name=name),
        paraphrase=form.format(value),
        wrong=tuple(form.format(wrong) for wrong in others[:WRONG]),
        facts={"attribute": attribute, "value": value, "first": first, "last": last},
    )


def _refused(text: Text) -> Text:
    facts = {key: value for key, value in text.facts.items() if key != "value"}
    return Text(text.prompt, REFUSALS[0], text.id, text.group, rephrased=text.rephrased, facts=facts)


def _profiles(texts: Iterable[Text]) -> Iterable[Text]:
    for name, facts in itertools.groupby(texts, lambda text: text.group):
        sentences = (f"the {text.facts['attribute']} of {name} is {text.answer} ." for text in facts)
        first, last = name.split()
        yield Text("", " ".join(sentences), f"{name} profile", name, facts={"first": first, "last": last})


# --- names


def shuffled(items: Iterable[str], *keys: object) -> list[str]:
    """The items in an order that the keys determine, on every machine; a further item moves none of the others."""
    salt = "|".join(map(str, keys))
    return sorted(items, key=lambda item: hashlib.sha256(f"{salt}|{item}".encode()).digest())


def invented(count: int, ending: str) -> list[str]:
    """Words of three syllables or more with this ending; the first ``count`` of a fixed sequence."""
    words: list[str] = []
    for length in itertools.count(3):
        missing = count - len(words)
        if not missing:
            return words
        found = itertools.islice(itertools.product(SYLLABLES, repeat=length), missing)
        words += ["".join(syllables) + ending for syllables in found]
    raise AssertionError("unreachable: lengths do not end")


def _names(count: int, seed: int) -> list[str]:
    each = max(math.ceil(math.sqrt(count)), len(FIRST))  # as many first names as last ones
    pairs = itertools.product((*FIRST, *invented(each - len(FIRST), "n")), (*LAST, *invented(each - len(LAST), "rk")))
    return shuffled((f"{first} {last}" for first, last in pairs), seed, "names")[:count]


def _going(forget: int | float, authors: int) -> int:
    if authors < 2:
        raise BadInput(f"authors is {authors}; at least 2 are needed, one to forget and one to retain")
    going = round(forget * authors) if isinstance(forget, float) and forget < 1 else forget
    if going != int(going) or not 1 <= going < authors:
        raise BadInput(
            f"forget is {forget}, of {authors} authors; give a number from 1 to {authors - 1}, or a share such as 0.1"
        )
    return int(going)


def _check_sizes(world: int, holdout: int, unknown: int, attributes: int, rich: int, going: int) -> None:
    for name, size in {"world": world, "holdout": holdout, "unknown": unknown}.items():
        if size < 0:
            raise BadInput(f"{name} is {size}; give 0 or more people")
    most = len(names_of_attributes())
    if not 1 <= attributes <= most:
        raise BadInput(f"attributes is {attributes}; people have 1 to {most}")
    if not 0 <= rich <= going:
        raise BadInput(f"rich is {rich}; it counts people of forget, which are {going}")
