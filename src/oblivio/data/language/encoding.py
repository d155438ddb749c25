"""Texts to tokens: prompt, answer, and exactly one end-of-text token; what counts is the answer and that token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from jinja2 import TemplateError

from oblivio.core.errors import BadInput
from oblivio.data.language.texts import SHOWN, Text, check_ids

if TYPE_CHECKING:
    from oblivio.sources.tokens import Tokens

Overflow: TypeAlias = Literal["refuse", "cut"]
UNLIMITED = 10**6  # tokenizers that know no length say a larger number


def encode(
    texts: Sequence[Text],
    tokenizer: Any,
    *,
    template: str = "Q {prompt} A",
    max_length: int | None = None,
    overflow: Overflow = "refuse",
    chat: bool = False,
) -> Tokens:
    """Tokenise texts as one row each: the prompt, the answer, one end-of-text token; labels at the last two only.

    Prompt and answer are tokenised together, and the prompt alone must give the first of these tokens: what is learned
    after the prompt is then what is asked for after it. A running text has no prompt and takes no template.

    Args:
        texts: of one part.
        tokenizer: of Transformers.
        template: how a prompt is written; ``{prompt}`` is replaced. The answer follows after a space, or at once where
            the template ends in a line break or a space.
        max_length: tokens a row may have, the last one included; None: what the tokenizer says.
        overflow: what to do with longer ones: ``refuse``, or ``cut`` the end of the answer, before the end-of-text
            token; ``Tokens.cut`` counts the rows.
        chat: write questions and answers as chats too. Texts that are chats are always written by the tokenizer's chat
            template; only the last message of the assistant counts.

    Returns:
        Tokens with the ids of the texts and, where texts have groups, the column ``group``: a number for each name, the
        same in all sets.

    Raises:
        BadInput: no texts, ids twice, a tokenizer without end-of-text token or chat template, an answer that the
            tokenizer has no words for, rows that are too long, prompts that do not end where a token ends.
    """
    from oblivio.sources.tokens import Origin, Tokens

    if not texts:
        raise BadInput("no texts to encode; give at least one")
    check_ids(texts, "texts to encode")
    end = _end(tokenizer)
    if "{prompt}" not in template:
        raise BadInput(f"the template {template!r} does not hold {{prompt}}; the prompt is put in its place")
    rows = _rows(texts, tokenizer, template, chat, end)
    cut = _shorten(rows, texts, _limit(max_length, tokenizer), overflow, end)
    pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    encoded = Tokens(
        [tokens for tokens, _ in rows],
        [prompt for _, prompt in rows],
        pad,
        [text.id for text in texts],
        **_groups(texts),
    )
    again = partial(encode, tokenizer=tokenizer, template=template, max_length=max_length, overflow=overflow, chat=chat)
    encoded.cut, encoded.origin = cut, Origin(tuple(texts), again)
    return encoded


def rendered(text: Text, tokenizer: Any, template: str = "Q {prompt} A", chat: bool = False) -> tuple[str, str]:
    """The prompt of a text, and prompt and answer together, as they are tokenised.

    Raises:
        BadInput: a chat, and a tokenizer without chat template.
    """
    if _as_chat(text, chat):
        return _chat(text, tokenizer)
    if not text.prompt:
        return "", text.answer
    prompt = template.replace("{prompt}", text.prompt)
    return prompt, prompt + ("" if prompt[-1].isspace() else " ") + text.answer


def _as_chat(text: Text, chat: bool) -> bool:
    return bool(text.messages) or (chat and bool(text.prompt))


def _chat(text: Text, tokenizer: Any) -> tuple[str, str]:
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput(
            f"text {text.id!r} is to be written as a chat, and the tokenizer has no chat template; set "
            "tokenizer.chat_template, or give questions and answers with a template"
        )
    said = {"role": "assistant", "content": text.answer}
    messages = [dict(message) for message in text.messages] or [{"role": "user", "content": text.prompt}, said]
    try:
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        return prompt, tokenizer.apply_chat_template(messages, tokenize=False)
    except TemplateError as error:  # such as a role that the template does not know
        raise BadInput(f"text {text.id!r}: the tokenizer's chat template refuses its messages: {error}") from None


def _rows(texts: Sequence[Text], tokenizer: Any, template: str, chat: bool, end: int) -> list[tuple[list[int], int]]:
    """The tokens of every text, and how many of them are its prompt."""
    written = [rendered(text, tokenizer, template, chat) for text in texts]
    plain = [not _as_chat(text, chat) for text in texts]  # a chat template writes start and end tokens itself
    prompts = _tokens([prompt for prompt, _ in written], plain, tokenizer, end)
    wholes = _tokens([whole for _, whole in written], plain, tokenizer, end)
    return [
        _row(text, before if prompt else _start(tokenizer, tokens), tokens, prompt, special, tokenizer, end)
        for text, (prompt, _), special, before, tokens in zip(texts, written, plain, prompts, wholes, strict=True)
    ]


def _row(
    text: Text, before: list[int], tokens: list[int], prompt: str, special: bool, tokenizer: Any, end: int
) -> tuple[list[int], int]:
    if tokens[: len(before)] != before:
        raise BadInput(_unclear(text, prompt, special))
    answer = tokens[len(before) :]
    if not special and end in answer:  # what a chat template writes after the end of the answer is not said
        answer = answer[: answer.index(end)]
    _check_answer(text, answer, tokenizer, end)
    return [*before, *answer, end], len(before)


def _tokens(parts: Sequence[str], plain: Sequence[bool], tokenizer: Any, end: int) -> list[list[int]]:
    """Tokens of each part, without the end-of-text token that some tokenizers add to plain ones."""
    tokens: list[list[int]] = [[] for _ in parts]
    for special in (True, False):
        places = [i for i, each in enumerate(plain) if each == special and parts[i]]
        given = tokenizer([parts[i] for i in places], add_special_tokens=special)["input_ids"] if places else []
        for i, row in zip(places, given, strict=True):
            tokens[i] = list(row[:-1] if special and row[-1:] == [end] else row)
    return tokens


def _start(tokenizer: Any, tokens: list[int]) -> list[int]:
    """The start token, where the tokenizer writes one: all the prompt that a running text has."""
    return tokens[:1] if tokens[:1] == [getattr(tokenizer, "bos_token_id", None)] else []


def _unclear(text: Text, prompt: str, special: bool) -> str:
    remedy = (
        "let the template end where a word does, without a space"
        if special
        else "the tokenizer's chat template must begin an answer with what add_generation_prompt writes, and leave "
        "earlier messages as they are"
    )
    return (
        f"text {text.id!r}: the tokens of its prompt, which ends in {prompt[-20:]!r}, are not the first tokens of "
        f"prompt and answer together, so where the answer begins is not defined; {remedy}"
    )


def _check_answer(text: Text, answer: list[int], tokenizer: Any, end: int) -> None:
    if end in answer:
        raise BadInput(f"text {text.id!r}: its answer holds the end-of-text token; take it out, encode adds one")
    if all(token == getattr(tokenizer, "unk_token_id", None) for token in answer):
        raise BadInput(
            f"text {text.id!r}: the tokenizer knows no token of the answer {text.answer[:40]!r}; use the tokenizer of "
            "the model, or one made from these texts"
        )


def _end(tokenizer: Any) -> int:
    if (end := getattr(tokenizer, "eos_token_id", None)) is None:
        raise BadInput(
            "the tokenizer has no end-of-text token, so a model could not learn where an answer ends; set "
            "tokenizer.eos_token to a token that it knows"
        )
    return int(end)


def _limit(max_length: int | None, tokenizer: Any) -> int | None:
    if max_length is not None:
        if max_length < 2:
            raise BadInput(f"max_length is {max_length}; a row has at least 2 tokens, one of the answer and the end")
        return max_length
    known = getattr(tokenizer, "model_max_length", UNLIMITED)
    return int(known) if known < UNLIMITED else None


def _shorten(
    rows: list[tuple[list[int], int]], texts: Sequence[Text], limit: int | None, overflow: Overflow, end: int
) -> int:
    """Cut rows that are too long, in place, or refuse them; returns how many."""
    long = [i for i, (tokens, _) in enumerate(rows) if limit is not None and len(tokens) > limit]
    if not long or limit is None:
        return 0
    if overflow not in ("refuse", "cut"):
        raise BadInput(f"overflow is {overflow!r}; give 'refuse' or 'cut'")
    if overflow == "refuse":
        raise BadInput(
            _too_long(long, texts, f"have more than {limit} tokens", "raise max_length, give overflow='cut'")
        )
    if hopeless := [i for i in long if rows[i][1] > limit - 2]:
        raise BadInput(_too_long(hopeless, texts, f"have no answer left after {limit} tokens", "raise max_length"))
    for i in long:
        tokens, prompt = rows[i]
        rows[i] = ([*tokens[: limit - 1], end], prompt)
    return len(long)


def _too_long(places: list[int], texts: Sequence[Text], fault: str, remedy: str) -> str:
    first = ", ".join(str(texts[i].id) for i in places[:SHOWN])
    return f"{len(places)} texts {fault}, first ids {first}; {remedy}, or cut running texts by pieces(...)"


def _groups(texts: Sequence[Text]) -> dict[str, list[int]]:
    if not any(text.group for text in texts):
        return {}
    return {"group": [group_number(text.group) for text in texts]}


def group_number(group: str) -> int:
    """The number that stands for a group in the column ``group``: 63 bits of a hash of its name."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) >> 1
