"""Policy: which figures decide, what each is held against, and by how much it may be off. One for each goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from oblivio.core.errors import BadInput, nearest

Against = Literal["references", "original", "chance", "kept", "level"]
Side = Literal["high", "low", "both"]


@dataclass(frozen=True)
class Rule:
    """One figure that must be where it ought to be.

    Attributes:
        figure: id of the probe.
        side: where it may not lie: above (``high``), below (``low``) or on either side of its band.
        tolerance: the least half width of the band, in units of the figure; of errors, as a share of the mean.
        against: what the band is about: the references' figures; the original's own; chance; the model's own figure
            on test rows that stay (``kept``); or nothing (``level``): then ``tolerance`` itself is the limit, as for a
            p-value.
        about: ``outputs`` or ``features``, of rules that can tell the original from the references; one of each kind
            must, before a model is accepted. Empty for those on what is to stay.
    """

    figure: str
    side: Side
    tolerance: float
    against: Against = "references"
    about: str = ""


RETRAINED = (
    Rule("forget", "both", 0.02, about="outputs"),
    Rule("divergence_forget", "high", 0.01, about="outputs"),
    Rule("mia_lira", "both", 0.03, about="outputs"),
    Rule("small_request", "low", 0.01, "level", about="outputs"),
    Rule("linear_probe", "high", 0.03, about="features"),
    Rule("recovery", "high", 0.03, about="features"),
    Rule("cka_forget", "low", 0.05, about="features"),
    Rule("relearning", "high", 0.03, about="features"),
    Rule("retain", "low", 0.015),
    Rule("kept", "low", 0.015),
    Rule("divergence_test", "high", 0.01),
)
CLEAN = (
    Rule("affected", "low", 0.05, "kept", about="outputs"),
    Rule("kept", "low", 0.02, "original"),
)
CHANCE = (
    Rule("forget", "high", 0.05, "chance", about="outputs"),
    Rule("recovery", "high", 0.15, "chance", about="features"),
    Rule("linear_probe", "high", 0.15, "chance", about="features"),
    Rule("kept", "low", 0.02, "original"),
)
POLICIES: dict[str, tuple[Rule, ...]] = {"retrained": RETRAINED, "clean": CLEAN, "chance": CHANCE}

TEXTS_RETRAINED = (
    Rule("forget", "both", 0.05, about="outputs"),
    Rule("rephrased", "high", 0.05, about="outputs"),
    Rule("extraction", "high", 0.05, about="outputs"),
    Rule("truth_distance", "high", 0.1, about="outputs"),
    Rule("min_k", "both", 0.1, about="outputs"),
    Rule("prompts", "high", 0.05, about="outputs"),
    Rule("sampled", "high", 0.05, about="outputs"),
    Rule("relearning", "high", 0.05, about="features"),
    Rule("early", "high", 0.05, about="features"),
    Rule("quantized", "high", 0.05, about="features"),
    Rule("retain", "low", 0.05),
    Rule("kept", "low", 0.05),
    Rule("utility", "low", 0.05),
)
TEXTS_CHANCE = (
    Rule("forget", "high", 0.05, "chance", about="outputs"),
    Rule("relearning", "high", 0.15, "chance", about="features"),
    Rule("kept", "low", 0.02, "original"),
)
TEXTS: dict[str, tuple[Rule, ...]] = {"retrained": TEXTS_RETRAINED, "clean": CLEAN, "chance": TEXTS_CHANCE}


def policy(
    goal: str, tolerances: Mapping[str, float] | None = None, policies: Mapping[str, tuple[Rule, ...]] = POLICIES
) -> list[Rule]:
    """The rules for a goal, with the user's tolerances in place of those that are shipped.

    Raises:
        BadInput: a tolerance for a figure that the policy of this goal does not look at, or one that is negative.
    """
    given, rules = dict(tolerances or {}), policies[goal]
    for name, value in given.items():
        if name not in (known := [rule.figure for rule in rules]):
            raise BadInput(f"audit.tolerances: the goal {goal!r} is not judged by {name!r}{nearest(name, known)}")
        if not value >= 0:
            raise BadInput(f"audit.tolerances: {name} is {value}; it must be 0 or more")
    return [replace(rule, tolerance=float(given.get(rule.figure, rule.tolerance))) for rule in rules]


def to_json(rules: list[Rule]) -> list[dict[str, Any]]:
    """As a report holds them."""
    return [asdict(rule) for rule in rules]
