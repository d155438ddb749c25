"""Texts about pictures, and how they become tokens: a picture stands at image tokens in the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput, nearest
from oblivio.data.language.encoding import encode
from oblivio.data.language.texts import Text, Texts

if TYPE_CHECKING:
    from oblivio.sources.tokens import Tokens

Images: TypeAlias = Mapping[str, "np.ndarray[Any, np.dtype[np.float32]]"]
IMAGE = "<image>"  # what stands for a picture in a text, as in most vision-language models


@dataclass(frozen=True)
class Pictured:
    """Texts, and the pictures that they are about.

    Attributes:
        texts: of which one that is about a picture has its name in ``facts["image"]``; the others are texts alone.
        images: by name, as a network takes them: (channels, height, width).
    """

    texts: Texts
    images: Images

    def part(self, name: str) -> tuple[Text, ...]:
        """As ``Texts.part``."""
        return self.texts.part(name)

    def encode(self, part: str | Sequence[Text], tokenizer: Any, **settings: Any) -> Tokens:
        """The tokens of a part, or of texts; see ``encode_pictured``."""
        texts = self.part(part) if isinstance(part, str) else part
        return encode_pictured(texts, self.images, tokenizer, **settings)


def encode_pictured(
    texts: Sequence[Text],
    images: Images,
    tokenizer: Any,
    *,
    count: int,
    word: str = IMAGE,
    template: str = "{image} Q {prompt} A",
    **settings: Any,
) -> Tokens:
    """Tokenise texts as ``encode`` does, with ``count`` image tokens where a picture stands, and the column ``image``.

    Texts without a picture lose ``{image}`` from their template, and have a picture of zeros, which is not shown: the
    column ``pictured`` says so, where there are texts of both kinds.

    Args:
        texts: of one part.
        images: by name, all of one shape; prepare them as the model wants them, by its image processor.
        tokenizer: of Transformers; ``word`` is one token of it.
        count: image tokens a picture, as many as the model makes of one: 576 for LLaVA-1.5.
        word: that becomes the image token.
        template: how a prompt is written; ``{image}`` and ``{prompt}`` are replaced.
        settings: of ``encode``. ``max_length`` counts a picture as one token.

    Raises:
        BadInput: whatever ``encode`` refuses, a picture that is not there, a tokenizer without the image token, or that
            token in an answer, or in the prompt of a text without a picture.
    """
    from oblivio.sources.tokens import Origin, Tokens

    token = tokenizer.convert_tokens_to_ids(word)
    if token is None or token == tokenizer.unk_token_id:
        raise BadInput(f"the tokenizer has no token {word!r}; add it, or say with word= what stands for a picture")
    if "{image}" not in template:
        raise BadInput(f"the template {template!r} does not hold {{image}}; the picture is put in its place")
    _check(texts, images)
    shown = encode(texts, tokenizer, template=template.replace("{image}", word), **settings)
    alone = encode(texts, tokenizer, template=template.replace("{image}", "").strip(), **settings)
    rows, prompts = [], []
    for i, text in enumerate(texts):
        row, prompt = (shown if "image" in text.facts else alone).sequence(i)
        _check_row(text, row, prompt, token)
        rows.append([t for each in row for t in ([each] * count if each == token else [each])])
        prompts.append(len(rows[-1]) - (len(row) - prompt))
    encoded = Tokens(rows, prompts, shown.pad, shown.ids, **shown.extra, **_column(texts, images))
    again = partial(encode_pictured, images=images, tokenizer=tokenizer, count=count, word=word, template=template)
    encoded.origin = Origin(tuple(texts), partial(again, **settings))
    return encoded


def _check(texts: Sequence[Text], images: Images) -> None:
    for text in texts:
        name = text.facts.get("image")
        if name is not None and name not in images:
            raise BadInput(f"text {text.id!r} is about the picture {name!r}, which is not there{nearest(name, images)}")
    shapes = {images[text.facts["image"]].shape for text in texts if "image" in text.facts}
    if len(shapes) > 1:
        raise BadInput(f"pictures have the shapes {sorted(shapes)[:2]}; bring them to one, by the model's processor")


def _check_row(text: Text, row: list[int], prompt: int, token: int) -> None:
    found, wanted = row[:prompt].count(token), int("image" in text.facts)
    if found != wanted or token in row[prompt:]:
        raise BadInput(
            f"text {text.id!r} holds the image token; it stands for the picture, {wanted} of them, which the template "
            "puts in"
        )


def _column(texts: Sequence[Text], images: Images) -> dict[str, Any]:
    """The pictures of all texts; nothing where none has one."""
    first = next((images[text.facts["image"]] for text in texts if "image" in text.facts), None)
    if first is None:
        return {}
    blank, pictured = np.zeros_like(first), ["image" in text.facts for text in texts]
    shown = np.stack([images[text.facts["image"]] if "image" in text.facts else blank for text in texts])
    return {"image": shown} if all(pictured) else {"image": shown, "pictured": pictured}
