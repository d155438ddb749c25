"""Long running texts in pieces that fit into a model's context, as for the books and articles of MUSE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from oblivio.core.errors import BadInput
from oblivio.data.language.texts import Text

MARKS = 2  # tokens that a row has beside the text: a start and an end


def pieces(texts: Iterable[Text], tokenizer: Any, max_length: int) -> tuple[Text, ...]:
    """Cut running texts between words so that each piece is a row of at most ``max_length`` tokens.

    Questions, chats and texts that fit stay as they are. A piece has the id of its text with ``piece`` and its number,
    and the text's group, or else its id as the group: what is forgotten together.

    Args:
        texts: in their order.
        tokenizer: of Transformers, a fast one.
        max_length: as for ``encode``, start and end tokens included.

    Raises:
        BadInput: no room for a token, or a tokenizer that does not say where its tokens lie.
    """
    if max_length <= MARKS:
        raise BadInput(f"max_length is {max_length}; a piece has at least {MARKS + 1} tokens, with start and end")
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput("the tokenizer does not say where its tokens lie; open the fast one of the same model")
    return tuple(piece for text in texts for piece in _pieces(text, tokenizer, max_length - MARKS))


def _pieces(text: Text, tokenizer: Any, room: int) -> Iterator[Text]:
    if text.prompt or len(_ends(text.answer, tokenizer)) <= room:
        yield text
        return
    group = text.group or str(text.id)
    for number, piece in enumerate(_cut(text.answer, tokenizer, room)):
        yield replace(text, answer=piece, id=f"{text.id} piece {number}", group=group)


def _cut(words: str, tokenizer: Any, room: int) -> Iterator[str]:
    ends = _ends(words, tokenizer)
    start = first = 0  # character and token that the piece begins with
    while start < len(words):
        stop = max(ends[first + room - 1], start + 1) if first + room <= len(ends) else len(words)
        piece = _fitting(words[start:stop], words[stop : stop + 1], tokenizer, room)
        if piece.strip():
            yield piece.strip()
        start += len(piece)
        first = next((i for i in range(first, len(ends)) if ends[i] > start), len(ends))


def _fitting(piece: str, following: str, tokenizer: Any, room: int) -> str:
    """As much of ``piece`` from its start as ends with a word and gives at most ``room`` tokens by itself."""
    if following and not following.isspace() and len(piece) > 1:
        piece = _without_last_word(piece)
    while len(piece) > 1 and len(_ends(piece.strip(), tokenizer)) > room:  # the first word may be other tokens alone
        piece = _without_last_word(piece)
    return piece


def _without_last_word(piece: str) -> str:
    """``piece`` up to its last blank, or, where it is one word, without its last letter."""
    blank = max((i for i, letter in enumerate(piece.rstrip()) if letter.isspace()), default=-1)
    return piece[: blank + 1] if piece[: blank + 1].strip() else piece[:-1]


def _ends(words: str, tokenizer: Any) -> list[int]:
    """The character after each token."""
    found = tokenizer(words, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [end for _, end in found]
