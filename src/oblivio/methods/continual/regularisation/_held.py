"""The plan that the methods of this family share: new rows alone, weights held by an Anchor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.where import How
from oblivio.how import pull
from oblivio.terms import fit, penalty
from oblivio.terms.anchor import Anchor

Form = Literal["proximal", "explicit"]


def held(
    anchor: Anchor,
    strength: float,
    form: Form,
    *,
    lr: float,
    momentum: float,
    epochs: float,
    batch: int,
    also: Sequence[How] = (),
) -> Stage:
    """Train on ``new`` under (strength / 2) sum_i A_i (theta_i - c_i)^2, as a pull after every step or as a term."""
    loss = fit("new") if form == "proximal" else fit("new") + penalty(anchor, strength)
    how = [pull(anchor, strength), *also] if form == "proximal" else list(also)
    return Descent(loss, how=how, opt=sgd(lr, momentum), over="new", epochs=epochs, batch=batch)
