"""Knowledge of two kinds: in words that have nothing in common, or about different attributes of the same people."""

from __future__ import annotations

from collections.abc import Collection

from oblivio.core.errors import BadInput, nearest
from oblivio.data.language.people import VALUES, Wording, fact, invented, names_of_attributes, people, shuffled
from oblivio.data.language.texts import Text, Texts

OTHER = Wording(
    prompt="name any {attribute} belonging to {name} :",
    rephrased="say which {attribute} belongs to {name} :",
    forms=("{}", "some {}"),
)
POOL = 30  # first words, and second words, of the names of the second domain


def domains(size: int = 30, attributes: int = 6, seed: int = 0) -> Texts:
    """Two sets of facts whose words are disjoint, so that a mixture of experts can route them apart (UOE's check).

    Parts: ``retain`` (people, as in ``people``) and ``forget`` (others, with other names, attributes, values and
    wording). Only what a template adds around a prompt is common.

    Args:
        size: people in each part, 2 to 900.
        attributes: facts of each, 1 to 6.
        seed: of every draw.

    Raises:
        BadInput: sizes outside these ranges.
    """
    second = names_of_attributes()[len(VALUES) :]
    if not 2 <= size <= POOL * POOL:
        raise BadInput(f"size is {size}; give 2 to {POOL * POOL} people")
    if not 1 <= attributes <= len(VALUES):
        raise BadInput(f"attributes is {attributes}; people of the first domain have 1 to {len(VALUES)}")
    first = people(authors=size + 1, world=0, holdout=0, forget=1, attributes=attributes, seed=seed)
    firsts, lasts = invented(POOL, "th"), invented(POOL, "x")
    names = shuffled((f"{a} {b}" for a in firsts for b in lasts), seed, "names of the second domain")[:size]
    forget = tuple(fact(name, attribute, seed, OTHER) for name in names for attribute in second[:attributes])
    return Texts(
        "domains",
        {"retain": first.part("retain"), "forget": forget},
        first.refusals,
        first.licence,
        (f"two domains without a common word, drawn with seed {seed}",),
    )


def by_attribute(texts: Texts, going: Collection[str] = ("award", "genre")) -> Texts:
    """The same people, of whom some attributes are to be forgotten: a domain of knowledge, as in WMDP.

    Parts: ``forget`` and ``retain`` (facts of the authors), ``world_forget`` and ``world_retain`` (of the others).

    Args:
        texts: of ``people``.
        going: the attributes of the domain that goes.

    Raises:
        BadInput: an attribute that nobody has.
    """
    authors, others = texts.part("retain+forget"), texts.part("world")
    had = {text.facts["attribute"] for text in authors}
    for attribute in going:
        if attribute not in had:
            raise BadInput(f"nobody has the attribute {attribute!r}{nearest(attribute, had)}")
    parts = {
        "forget": _with(authors, going, True), "retain": _with(authors, going, False),
        "world_forget": _with(others, going, True), "world_retain": _with(others, going, False),
    }  # fmt: skip
    return Texts("people by attribute", parts, texts.refusals, texts.licence, texts.notes)


def _with(texts: Collection[Text], attributes: Collection[str], inside: bool) -> tuple[Text, ...]:
    return tuple(text for text in texts if (text.facts["attribute"] in attributes) == inside)
