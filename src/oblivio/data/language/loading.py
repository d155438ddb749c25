"""Texts by name or by place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from oblivio.core.errors import BadInput, nearest
from oblivio.data.language.corruption import corruption
from oblivio.data.language.domains import domains
from oblivio.data.language.files import ENDINGS, as_texts, file, hub
from oblivio.data.language.people import people
from oblivio.data.language.published import muse, rwku, tofu
from oblivio.data.language.texts import Texts

NAMED: dict[str, Callable[..., Texts]] = {
    "corruption": corruption, "domains": domains, "muse": muse, "people": people, "rwku": rwku, "tofu": tofu,
}  # fmt: skip
HUB = "hub:"


def names() -> list[str]:
    """The sets of texts that ``texts`` knows by name, sorted."""
    return sorted(NAMED)


def texts(name: Any, **options: Any) -> Texts:
    """Load texts.

    Args:
        name: ``people``, ``domains`` or ``corruption`` (generated, no download); ``tofu``, ``rwku`` or ``muse`` (files
            in the folder that OBLIVIO_DATA names, then the user's cache, then the hub); a ``.jsonl``, ``.json`` or
            ``.txt`` file, or a folder of such; ``hub:<repository>``; or texts themselves: a list of pairs (prompt,
            answer), of running texts, of mappings, a Dataset, or a mapping of parts to such.
        options: of the generator or reader.

    Example:
        >>> len(texts("people", authors=10, forget=0.2).part("forget"))
        12

    Raises:
        BadInput: an unknown name or option (with the nearest), or whatever the reader refuses.
    """
    if not isinstance(name, (str, Path)):
        return as_texts(name, **options)
    reader = _reader(str(name))
    taken = inspect.signature(reader).parameters
    for option in options:
        if option not in taken:
            raise BadInput(f"texts {str(name)!r} take no option {option!r}{nearest(option, taken)}")
    return reader(**options)


def _reader(name: str) -> Callable[..., Texts]:
    if name in NAMED:
        return NAMED[name]
    if name.startswith(HUB):
        return partial(hub, name.removeprefix(HUB))
    if name.endswith(ENDINGS) or Path(name).is_dir():
        return partial(file, name)
    raise BadInput(
        f"no texts are called {name!r}{nearest(name, names())}; your own are a {', '.join(ENDINGS)} file, a folder of "
        f"such, or {HUB}<repository>"
    )
