"""Which Descents of a plan learn, and from what: pieces that follow the units or outputs of learned rows need both."""

from __future__ import annotations

import copy

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.term import source_name

LEARNED = ("new", "retain", "train")  # in this order, where several are read


def learning(plan: Stage, piece: str) -> tuple[Stage, list[tuple[Descent, str]]]:
    """A copy of a plan, and its Descents that learn, each with the name of the source it learns from.

    Raises BadInput, which names the piece, where no Descent reads a source of ``LEARNED``.
    """
    plan = copy.deepcopy(plan)
    found = []
    for _, part in walk(plan):
        if isinstance(part, Descent):
            read = {source_name(on) for on in part.loss.reads}
            found += [(part, on) for on in LEARNED if on in read][:1]
    if not found:
        raise BadInput(f"{piece} follows what is learned, and {plan!r} reads none of {', '.join(LEARNED)}")
    return plan, found
