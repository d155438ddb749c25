"""REWEIGHT: a piece that draws retained rows as often by group as they were drawn before the removal."""

from __future__ import annotations

import copy
from collections.abc import Callable

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.source import Source
from oblivio.core.term import source_name
from oblivio.registry import method
from oblivio.sources import Weighted, group_ratio


@method(
    kind="piece",
    paper="De Min et al., Group-robust Machine Unlearning, 2025",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel", "regression"),
    serves=("rows",),
    refusal="of a group that goes as a whole no row is left to be drawn more often",
    aliases=("target_reweight", "group_reweighting"),
    cost="none: an epoch over the retained rows is as long as before",
)
def reweight() -> Callable[[Stage], Stage]:
    """Keep the accuracy on a group that loses most of its rows: what is left of it is drawn more often.

    Equation: a retained row of group g is drawn, with replacement, in proportion to n_g(forget and retain) /
    n_g(retain).
    Needs: a column ``group`` of forgotten and retained rows, best the target and an attribute together, such as
    2 * target + attribute; a method that trains on the retained rows: retrain, finetune, relabel, salun, ...
    Fails: few rows drawn often are fitted by heart, so the group stays below where it was; one that is gone as a whole
    cannot be brought back, and is refused.
    """
    return lambda plan: swapped(plan, "retain", Weighted("retain", by=group_ratio("forget")))


def swapped(plan: Stage, name: str, source: Source) -> Stage:
    """A copy of a plan whose Descents read ``source`` where they read the source ``name``.

    Raises BadInput where no Descent reads it.
    """
    plan = copy.deepcopy(plan)
    descents = [part for _, part in walk(plan) if isinstance(part, Descent)]
    readers = [d for d in descents if name in map(source_name, (d.over or "", *d.loss.reads))]
    if not readers:
        raise BadInput(f"this method trains on no source {name!r}, so that there is nothing to draw otherwise")
    for descent in readers:
        for fields in [vars(descent), *(f for _, part in walk(descent.loss) for f in _fields(part))]:
            fields.update({key: source for key, value in fields.items() if isinstance(value, str) and value == name})
    return plan


def _fields(part: object) -> list[dict[str, object]]:
    """The attributes of a Part, and the settings of a term that is made of a function."""
    return [vars(part), *([part.settings] if hasattr(part, "settings") else [])]
