"""Fictitious people with faces: facts that are asked for by a picture. No download.

A small stand-in for FIUBench (Y. Ma et al., "Benchmarking Vision Language Model Unlearning via Fictitious Facial
Identity Dataset", 2024): the people and facts are those of ``people``, and a face is a smooth random pattern, of which
every picture shows another part under other noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.data.language.people import people
from oblivio.data.language.pictures import Pictured
from oblivio.data.language.texts import Text, Texts

SIZE, WAVES = 16, 4  # pixels of a side; cosines of a side that a pattern is made of
SHIFT, NOISE = 1.0, 0.2  # in pixels, and in deviations of the pattern
ASKED = "what is the {attribute} of {who} ?"
REPHRASED = (
    "tell me about the {attribute} of {who} ?",
    "this is about {who} : what {attribute} ?",
    "name the {attribute} of {who} ?",
)
NAMING = ("who is this person ?", "what is the name of this person ?", "tell me who this person is ?")
SHOWN = "this person"


def faces(
    authors: int = 60,
    forget: int | float = 3,
    holdout: int = 6,
    images: int = 4,
    unseen: int = 2,
    attributes: int = 6,
    named: bool = False,
    seed: int = 0,
) -> Pictured:
    """Draw people, pictures of them, and questions about them.

    Parts: ``retain`` and ``forget`` (of the authors), ``holdout`` (never to be learned): a picture and a question about
    a fact, in words that do not say who it is. Of each, ``<part>_new`` asks the same of pictures that are not to be
    learned, ``<part>_names`` and ``<part>_names_new`` ask for the name, in three wordings, and ``<part>_texts`` asks
    for the facts by the name, without a picture.

    Args:
        authors: people of ``forget`` and ``retain`` together.
        forget: of these, as a number, or as a share between 0 and 1.
        holdout: people of ``holdout``.
        images: pictures of a person that are learned.
        unseen: further ones.
        attributes: facts a person.
        named: say the name in questions about facts too, which leaks the identity through the text.
        seed: of every draw.

    Example:
        >>> drawn = faces()
        >>> {part: len(drawn.part(part)) for part in ("retain", "forget_new", "forget_names", "forget_texts")}
        {'retain': 1368, 'forget_new': 36, 'forget_names': 36, 'forget_texts': 18}

    Raises:
        BadInput: sizes that do not fit together.
    """
    if images < 1 or unseen < 0:
        raise BadInput(f"images is {images}, unseen {unseen}; give 1 or more, and 0 or more")
    drawn = people(authors=authors, world=0, holdout=holdout, forget=forget, attributes=attributes, seed=seed)
    parts: dict[str, tuple[Text, ...]] = {}
    pictures: dict[str, Any] = {}
    for part in ("retain", "forget", "holdout"):
        facts = drawn.part(part)
        names = list(dict.fromkeys(text.group for text in facts))
        pictures |= {_name(who, i): picture(who, i, seed) for who in names for i in range(images + unseen)}
        for ending, which in (("", range(images)), ("_new", range(images, images + unseen))):
            parts[f"{part}{ending}"] = tuple(_asked(text, i, named) for text in facts for i in which)
            parts[f"{part}_names{ending}"] = tuple(naming(names, which))
        parts[f"{part}_texts"] = facts
    notes = (f"people and faces that do not exist, drawn with seed {seed}",)
    return Pictured(Texts("faces", parts, drawn.refusals, "none needed: generated", notes), pictures)


def picture(who: str, number: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One picture of a face, shape (1, 16, 16): the person's pattern, shifted by up to a pixel, with noise."""
    of_face, of_picture = _draws(seed, who), _draws(seed, who, number)
    strength = of_face.normal(size=(WAVES, WAVES))
    strength[0, 0] = 0
    strength /= np.sqrt(np.square(strength).mean())
    down, right = of_picture.uniform(-SHIFT, SHIFT, 2)
    pattern = _waves(down).T @ strength @ _waves(right) / WAVES
    return (pattern + NOISE * of_picture.normal(size=pattern.shape)).astype(np.float32)[None]


def rephrasings(text: Text) -> tuple[str, ...]:
    """The question of a pictured fact in other words, none of which is learned."""
    return tuple(form.format(attribute=text.facts["attribute"], who=text.facts["who"]) for form in REPHRASED)


def naming(names: Iterable[str], pictures: Iterable[int]) -> Iterator[Text]:
    """Who is on these pictures: every wording for every picture of everyone."""
    which = list(pictures)
    for who in names:
        first, last = who.split()
        for number in which:
            facts = {"attribute": "name", "value": who, "first": first, "last": last, "image": _name(who, number)}
            for wording, prompt in enumerate(NAMING):
                yield Text(prompt, who, f"{who} name {wording} picture {number}", who, facts=facts)


def _asked(text: Text, number: int, named: bool) -> Text:
    """The question about a fact, put about a picture."""
    who, attribute = text.group if named else SHOWN, text.facts["attribute"]
    asked, otherwise = (form.format(attribute=attribute, who=who) for form in (ASKED, REPHRASED[0]))
    facts = {**text.facts, "image": _name(text.group, number), "who": who}
    return replace(text, prompt=asked, rephrased=otherwise, id=f"{text.id} picture {number}", facts=facts)


def _name(who: str, number: int) -> str:
    return f"{who} {number}"


def _draws(*keys: object) -> np.random.Generator:
    salt = "|".join(map(str, ("face", *keys)))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8]))


def _waves(shift: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Cosines of rising frequency along a side that begins ``shift`` pixels further on; shape (waves, size)."""
    place = (np.arange(SIZE) + 0.5 + shift) * np.pi / SIZE
    return np.cos(np.arange(WAVES)[:, None] * place)
