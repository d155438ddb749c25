"""References: models that never saw the forgotten rows. Trained here as the original was, or given ready-made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from oblivio.core.errors import BadInput
from oblivio.core.run import Watch
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.core.team import ALONE, Team
from oblivio.data.identity import shown
from oblivio.jobs.cache import trained
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe


@dataclass(frozen=True)
class Reference:
    """A model trained without the forgotten rows, and what that took where it is known."""

    module: nn.Module
    seconds: float | None = None
    rows: int | None = None


def seed_of(seed: int, number: int) -> int:
    """The seed of a reference, which is never that of the original, and the same for every method."""
    return mix(seed, "reference", number)


def retrained(
    number: int,
    recipe: Recipe,
    network: Network,
    retain: Source,
    seed: int,
    *,
    task: str,
    team: Team = ALONE,
    watch: Sequence[Watch] = (),
) -> Reference:
    """Reference ``number`` of a job with this seed: kept from before, or trained on ``retain`` now."""
    made = trained(recipe, network, retain, seed_of(seed, number), task=task, team=team, watch=watch)
    return Reference(made.module, made.seconds, made.rows)


def control_seed(seed: int) -> int:
    """The seed of a control, a model trained on all rows as the references are on theirs; no reference has it."""
    return mix(seed, "control")


def exact_seed(seed: int) -> int:
    """The seed of the model that serves where no method was accepted; no reference and no control has it."""
    return mix(seed, "exact")


def check_without(name: str, without: Sequence[Any], forget: Source) -> list[str]:
    """Refuse a reference that saw a row of the request; notes where it did without more than was asked.

    Args:
        name: of the reference, for the messages.
        without: ids of the rows it was trained without.
        forget: the rows of the request.

    Raises:
        BadInput: a forgotten id is not among ``without`` (the message counts them and names the first).
    """
    told = np.array([str(i) for i in without], dtype=str)
    asked = forget.ids.astype(str)
    seen = forget.ids[~np.isin(asked, told)]
    if len(seen):
        raise BadInput(
            f"{name} was trained with {len(seen)} of the {len(asked)} rows to forget, ids {shown(seen)}; "
            "a reference must have seen none of them"
        )
    more = len(told) - len(np.unique(asked))
    return [f"{name} was trained without {more} rows that are not forgotten here"] if more > 0 else []
