"""Streams by name, for a command line: ``split-fashion_mnist``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from oblivio.core.errors import BadInput, nearest
from oblivio.data.loading import load
from oblivio.data.streams.by_column import experiences
from oblivio.data.streams.classes import split_classes
from oblivio.data.streams.domains import domains, permuted, rotated
from oblivio.data.streams.experience import Stream
from oblivio.data.streams.imbalance import imbalanced
from oblivio.data.streams.mixed import blurry, online, si_blurry, sliding
from oblivio.data.streams.recurring import recurring
from oblivio.data.streams.several import in_turn

KINDS: dict[str, Callable[..., Stream]] = {
    "split": split_classes,
    "permuted": permuted,
    "rotated": rotated,
    "domains": domains,
    "blurry": blurry,
    "si_blurry": si_blurry,
    "sliding": sliding,
    "recurring": recurring,
    "scole": recurring,
    "experiences": experiences,
}


def stream(
    name: str, *, data: Mapping[str, Any] | None = None, imbalance: float = 1.0, online_size: int = 0, **options: Any
) -> Stream:
    """A stream by its name.

    Args:
        name: a kind (see ``stream_kinds``), ``-`` and the name of a data set (see ``load``): ``split-fashion_mnist``,
            ``permuted-mnist``, ``scole-digits``; or names of data sets joined by ``+``, one task each:
            ``mnist+fashion_mnist``.
        data: options of the data set, such as the roles of a table's columns.
        imbalance: ratio of a long tail made of the classes first; see ``imbalanced``.
        online_size: above 0: the stream in pieces of so many rows; see ``online``.
        options: of the kind.

    Raises:
        BadInput: an unknown kind, data set or option, each with the nearest, or what the kind refuses.

    Example:
        >>> from oblivio import data
        >>> data.stream("split-digits", tasks=5, scenario="task")
        Stream('split-digits', task-incremental, 5 experiences of 5 tasks, 1,200 rows, 10 outputs)
    """
    kind, dash, rest = name.partition("-")
    if kind in KINDS and dash:
        _check_options(name, KINDS[kind], options)
        dataset = load(rest, **(data or {}))
        made = KINDS[kind](dataset if imbalance == 1 else imbalanced(dataset, ratio=imbalance), **options)
    elif "+" in name:
        _check_options(name, in_turn, options)
        sets = [load(each, **(data or {})) for each in name.split("+")]
        made = in_turn([s if imbalance == 1 else imbalanced(s, ratio=imbalance) for s in sets], **options)
    else:
        raise BadInput(
            f"no stream is called {name!r}{nearest(kind, KINDS)}; write KIND-DATASET, such as split-digits, or data "
            "sets joined by +"
        )
    return online(made, size=online_size) if online_size else made


def stream_kinds() -> dict[str, str]:
    """The kinds of streams, each with what it is in a line."""
    return {kind: (inspect.getdoc(make) or "").partition("\n")[0] for kind, make in KINDS.items()}


def stream_options(kind: str) -> dict[str, inspect.Parameter]:
    """The options of a kind, as its signature has them. Raises BadInput for an unknown kind, with the nearest."""
    if kind not in KINDS:
        raise BadInput(f"no kind of stream is called {kind!r}{nearest(kind, KINDS)}")
    return dict(list(inspect.signature(KINDS[kind]).parameters.items())[1:])


def _check_options(name: str, make: Callable[..., Stream], options: Mapping[str, Any]) -> None:
    taken = list(inspect.signature(make).parameters)[1:]
    for option in options:
        if option not in taken:
            raise BadInput(f"stream {name!r} takes no option {option!r}{nearest(option, taken)}")
