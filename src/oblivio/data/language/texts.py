"""What a text is, and a named set of texts with parts; no tokens yet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from oblivio.core.errors import BadInput, nearest

SHOWN = 5  # ids that a message names


@dataclass(frozen=True)
class Text:
    """A question and its answer, a running text, or a chat.

    Attributes:
        prompt: what is given; "" for a running text, of which every token is learned.
        answer: what is to be said; never empty.
        id: of the record; unique in a part, and the same wherever the record occurs.
        group: the person, author or subject: what is forgotten together.
        rephrased: the prompt in other words.
        paraphrase: the true answer in the form of the wrong ones.
        wrong: answers that are not true, in the form of ``paraphrase``.
        messages: a chat, each message with ``role`` and ``content``; the last one is the answer, the one before it the
            prompt, which therefore need not be given.
        facts: what a generator or a file knows beside: the attribute, its value, the type of a question.

    Raises:
        BadInput: an empty answer, or a chat that does not end in an answer of the assistant.
    """

    prompt: str
    answer: str
    id: str | int
    group: str = ""
    rephrased: str = ""
    paraphrase: str = ""
    wrong: tuple[str, ...] = ()
    messages: tuple[Mapping[str, str], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.messages:
            _check_chat(self)
            object.__setattr__(self, "answer", self.messages[-1]["content"])
            object.__setattr__(self, "prompt", self.messages[-2]["content"])
        if not self.answer.strip():
            raise BadInput(f"text {self.id!r}: the answer is empty; give one, or leave the text out")

    def but(self, *, prompt: str | None = None, answer: str | None = None) -> Text:
        """The same record asked in other words, or answered otherwise; a chat's last two messages follow."""
        prompt, answer = self.prompt if prompt is None else prompt, self.answer if answer is None else answer
        if not self.messages:
            return replace(self, prompt=prompt, answer=answer)
        *before, asked, said = self.messages
        chat = (*before, {**asked, "content": prompt}, {**said, "content": answer})
        return replace(self, prompt="", answer="", messages=chat)


def _check_chat(text: Text) -> None:
    roles = [message.get("role", "") for message in text.messages]
    if any("content" not in message for message in text.messages):
        raise BadInput(f"text {text.id!r}: a message without content; every message needs role and content")
    if len(roles) < 2 or roles[-1] != "assistant":
        raise BadInput(
            f"text {text.id!r}: a chat of {', '.join(roles) or 'no roles'}; it must end with a message of the "
            "assistant, the answer, after at least one other"
        )
    for given, said in ((text.answer, text.messages[-1]), (text.prompt, text.messages[-2])):
        if given and given != said["content"]:
            raise BadInput(f"text {text.id!r}: prompt and answer of a chat are its last messages; change it by but()")


@dataclass(frozen=True)
class Texts:
    """A named set of texts.

    Attributes:
        name: as it was asked for.
        parts: by name; a record may be in several, under one id.
        refusals: ways to say that one does not know.
        licence: as stated by the source.
        notes: origin, and what a reader of results should know.
        missing: parts that the source has and this machine has not, each with how to get it.

    Raises:
        BadInput: two texts of a part have the same id.
    """

    name: str
    parts: Mapping[str, tuple[Text, ...]]
    refusals: tuple[str, ...] = ()
    licence: str = ""
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, texts in self.parts.items():
            check_ids(texts, f"{self.name}, part {part!r}")

    def part(self, name: str) -> tuple[Text, ...]:
        """The texts of a part; several, joined by ``+``, are taken in turn, each record once.

        Raises:
            BadInput: no such part, with the nearest, or one that is not on this machine.
        """
        names = [name] if name in self.parts else name.split("+")
        for each in names:
            if each in self.missing:
                raise BadInput(f"{self.name!r}: the part {each!r} is not on this machine; {self.missing[each]}")
            if each not in self.parts:
                raise BadInput(f"{self.name!r} has no part {each!r}{nearest(each, self.parts)}")
        if len(names) == 1:
            return self.parts[name]
        return tuple({text.id: text for each in names for text in self.parts[each]}.values())

    def grouped(self, name: str, groups: Sequence[str]) -> tuple[Text, ...]:
        """The texts of these groups in a part, or in several. Raises BadInput for a group without texts there."""
        texts = self.part(name)
        known = {text.group for text in texts}
        for group in groups:
            if group not in known:
                raise BadInput(f"{self.name!r}, {name}: no text of the group {group!r}{nearest(group, known)}")
        return tuple(text for text in texts if text.group in groups)


def check_ids(texts: Sequence[Text], where: str) -> None:
    """Refuse two texts with one id."""
    twice = [name for name, count in Counter(text.id for text in texts).items() if count > 1]
    if twice:
        raise BadInput(
            f"{where}: {len(twice)} ids occur more than once, first {_named(twice)}; an id names one record, by which "
            "it is forgotten"
        )


def check_apart(forget: Iterable[Text], retain: Iterable[Text]) -> None:
    """Refuse a retain set that holds texts to be forgotten: training on it would teach them again.

    Prompt and answer are compared in lower case, without punctuation and repeated spaces; ids are not.

    Raises:
        BadInput: with the number of such texts and the first ids on both sides.
    """
    known = {_content(text): text.id for text in forget}
    both = [(known[content], text.id) for text in retain if (content := _content(text)) in known]
    if both:
        pairs = _named([f"{a} = {b}" for a, b in both])
        raise BadInput(
            f"{len(both)} texts to forget are also among those to retain (forget = retain: {pairs}); take them out of "
            "one side"
        )


def _content(text: Text) -> tuple[str, ...]:
    said = [message["content"] for message in text.messages] or [text.prompt, text.answer]
    return tuple(" ".join(re.findall(r"\w+", part.lower())) or part for part in said)


def _named(ids: Sequence[object]) -> str:
    return ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
