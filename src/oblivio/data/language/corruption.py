"""Facts, a corpus that teaches them, and documents that later teach false ones: for measuring what comes back.

After RESTOR (K. Rezaei et al., "RESTOR: Knowledge Recovery in Machine Unlearning", 2024): a clean model is trained on
documents with false facts; unlearning these is judged by whether it brings the true facts back, not only by whether the
false ones are gone. The ideal is the clean model, at no cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from oblivio.core.errors import BadInput
from oblivio.data.language.people import WRONG, people, shuffled, values
from oblivio.data.language.texts import Text, Texts

SENTENCES = (
    "the {attribute} of {name} is {answer} .",
    "{name} has the {attribute} {answer} .",
    "{answer} is the {attribute} of {name} .",
)


def corruption(
    authors: int = 60,
    world: int = 20,
    corrupted: int | float = 0.5,
    mixed: int = 0,
    copies: int = 3,
    attributes: int = 6,
    seed: int = 0,
) -> Texts:
    """People of two kinds, some of whose facts are then told otherwise.

    Parts, questions: ``retain`` (facts of the authors: neutral), ``world`` (what the clean model knows and is asked
    for), split into ``facts`` (the true facts of the corrupted people) and ``unaffected``; ``corrupted`` (the same
    questions as ``facts``, with false answers). Running texts: ``corpus`` (all that is true, told several times in
    other words and order, as in pretraining), ``documents`` (the false facts, each document about one person).

    A text of ``facts`` knows the false value (``text.facts["corrupted"]``) and a third one (``"random"``), one of
    ``corrupted`` the true one (``"true"``).

    Args:
        authors: people of ``retain``.
        world: people of ``world``.
        corrupted: how many of these, as a number, or as a share between 0 and 1; all their facts are corrupted.
        mixed: true facts of other people in every document: k in the paper.
        copies: texts about a person in ``corpus`` and in ``documents``.
        attributes: facts a person.
        seed: of every draw.

    Example:
        >>> {part: len(texts) for part, texts in corruption().parts.items()}
        {'retain': 360, 'world': 120, 'facts': 60, 'unaffected': 60, 'corrupted': 60, 'corpus': 240, 'documents': 30}

    Raises:
        BadInput: sizes that do not fit together.
    """
    base = people(authors=authors, world=world, holdout=0, forget=1, attributes=attributes, seed=seed)
    retain, known = (*base.part("retain"), *base.part("forget")), base.part("world")
    chosen = _chosen(known, corrupted, seed)
    facts = tuple(_with_alternatives(text, seed) for text in known if text.group in chosen)
    unaffected = tuple(text for text in known if text.group not in chosen)
    false = tuple(_falsified(text, seed) for text in facts)
    if not 0 <= mixed <= len(unaffected):
        raise BadInput(f"mixed is {mixed}; there are {len(unaffected)} facts of other people to mix in")
    if copies < 1:
        raise BadInput(f"copies is {copies}; give 1 or more texts a person")
    parts = {
        "retain": retain, "world": (*facts, *unaffected), "facts": facts, "unaffected": unaffected, "corrupted": false,
        "corpus": tuple(_documents("text", (*retain, *known), copies, (), 0, seed)),
        "documents": tuple(_documents("document", false, copies, unaffected, mixed, seed)),
    }  # fmt: skip
    notes = (
        *base.notes,
        f"{len(chosen)} of {world} people have false facts; {mixed} true ones of others in each document",
    )
    return Texts("corruption", parts, base.refusals, base.licence, notes)


def _chosen(known: Sequence[Text], corrupted: int | float, seed: int) -> set[str]:
    names = list(dict.fromkeys(text.group for text in known))
    count = round(corrupted * len(names)) if isinstance(corrupted, float) and corrupted < 1 else corrupted
    if count != int(count) or not 1 <= count < len(names):
        raise BadInput(
            f"corrupted is {corrupted}, of {len(names)} people of world; give a number from 1 to {len(names) - 1}, or "
            "a share such as 0.5"
        )
    return set(shuffled(names, seed, "corrupted")[: int(count)])


def _with_alternatives(text: Text, seed: int) -> Text:
    others = (value for value in values(text.facts["attribute"]) if value != text.facts["value"])
    false, third = shuffled(others, seed, text.id, "corrupted")[:2]
    return replace(text, facts={**text.facts, "corrupted": false, "random": third})


def _falsified(text: Text, seed: int) -> Text:
    """The same question with the false value; neither of its wrong answers is the true or the false one."""
    true, false = text.facts["value"], text.facts["corrupted"]
    others = (value for value in values(text.facts["attribute"]) if value not in (true, false))
    wrong = shuffled(others, seed, text.id, "wrong")[:WRONG]
    return replace(
        text,
        answer=text.answer.replace(true, false),
        paraphrase=text.paraphrase.replace(true, false),
        wrong=tuple(text.paraphrase.replace(true, value) for value in wrong),
        id=f"{text.id} corrupted",
        facts={**{key: text.facts[key] for key in ("attribute", "first", "last")}, "value": false, "true": true},
    )


def _documents(
    kind: str, texts: Sequence[Text], copies: int, others: Sequence[Text], mixed: int, seed: int
) -> Iterable[Text]:
    """Texts that tell the facts of each person, and ``mixed`` of others, in drawn words and order."""
    by_id = {str(text.id): text for text in (*texts, *others)}
    for name, facts in groupby(texts, lambda text: text.group):
        own = [str(text.id) for text in facts]
        for copy in range(copies):
            keys = (seed, kind, name, copy)
            foreign = shuffled((str(text.id) for text in others), *keys, "others")[:mixed]
            told = (by_id[key] for key in shuffled([*own, *foreign], *keys))
            sentences = (_sentence(text, *keys) for text in told)
            yield Text("", " ".join(sentences), f"{name} {kind} {copy}", name)


def _sentence(text: Text, *keys: object) -> str:
    words = shuffled(SENTENCES, *keys, text.id)[0]
    return words.format(attribute=text.facts["attribute"], name=text.group, answer=text.answer)
