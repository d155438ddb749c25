"""Claim: what is trained, what is compared, what must hold, and a control on which it must not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, TypeAlias

from oblivio.claims.condition import Condition

Figures: TypeAlias = dict[str, float]
Method: TypeAlias = Callable[..., Any]
Measure: TypeAlias = Callable[[Method, int], Figures]


class Rejected(RuntimeError):
    """A claim that cannot be told from an empty one: it asserts nothing, or holds of its own control."""


@dataclass(frozen=True)
class Changed:
    """A threshold or setting that differs from the card's: both values, and why."""

    what: str
    card: str
    here: str
    why: str


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        says: the claim in a sentence or two: what is compared with what.
        trained: what is trained, and what goes.
        method: what it is about; called with settings, gives what ``measure`` takes, mostly a plan.
        controls: by what they are, things with the same settings for which the claim must fail: the method as a
            no-op, or the obvious baseline.
        measure: ``measure(method, seed)`` gives every figure of one seed, by a name that conditions can use.
        holds: conditions on the means over the seeds.
        always: conditions on the figures of every seed.
        changed: how it departs from the card.
        because: the best explanation, by the condition that failed.
        tolerance: by how much a figure of one seed may differ when it is measured again, in units of the figure where
            it is above 1. Another instruction set moved figures of single remembered rows by up to 0.09, of whole
            classes by 0.01.
        fast: a cheaper ``measure`` for a look; by default one seed of ``measure`` itself is cheap enough.

    Raises:
        Rejected: no condition, one that no figure can change, no control, or an explanation of no condition.
    """

    says: str
    trained: str
    method: Method
    controls: Mapping[str, Method]
    measure: Measure
    holds: Sequence[str] = ()
    always: Sequence[str] = ()
    changed: Sequence[Changed] = ()
    because: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = 0.1
    fast: Measure | None = None

    def __post_init__(self) -> None:
        if not self.conditions:
            raise Rejected("the claim asserts nothing: give holds= or always=")
        if not self.controls:
            raise Rejected("the claim has no control on which it must fail: give controls=")
        try:
            parsed = [Condition(text) for text in self.conditions]
        except ValueError as error:
            raise Rejected(str(error)) from None
        stray = set(self.because) - {condition.text for condition in parsed}
        if stray:
            raise Rejected(f"because= explains {', '.join(sorted(stray))}, which is no condition of the claim")

    @property
    def conditions(self) -> list[str]:
        """All that must hold."""
        return [*self.holds, *self.always]


@dataclass(frozen=True)
class Judgement:
    """What figures say of a claim: each condition with its numbers, those that failed first by themselves."""

    failed: Sequence[tuple[str, str]]
    held: Sequence[tuple[str, str]]
    because: Mapping[str, str]

    @property
    def verdict(self) -> str:
        """``holds`` or ``fails``."""
        return "fails" if self.failed else "holds"

    @property
    def reason(self) -> str:
        """The conditions with their numbers, and the author's explanation of those that failed."""
        failed = [f"failed: {text} ({numbers})" for text, numbers in self.failed]
        held = [f"held: {text} ({numbers})" for text, numbers in self.held]
        explained = [self.because[text] for text, _ in self.failed if text in self.because]
        return ". ".join(["; ".join([*failed, *held]), *explained])


def judge(claim: Claim, figures: Mapping[str, Sequence[float]], *, partly: bool = False) -> Judgement:
    """Hold figures, a value a seed, against the claim.

    Args:
        claim: what must hold.
        figures: of every seed.
        partly: pass over conditions on figures that a cheaper measure leaves out.

    Raises:
        Rejected: a condition on a figure that was not measured.
    """
    means = {name: fmean(values) for name, values in figures.items()}
    seeds = [dict(zip(figures, row, strict=True)) for row in zip(*figures.values(), strict=True)]
    failed: list[tuple[str, str]] = []
    held: list[tuple[str, str]] = []
    for text, of in [*((text, [means]) for text in claim.holds), *((text, seeds) for text in claim.always)]:
        condition = Condition(text)
        missing = condition.names - figures.keys()
        if missing and not partly:
            raise Rejected(f"{text!r} is about {', '.join(sorted(missing))}, which was not measured")
        if not missing:
            worst = next((each for each in of if not condition.met(each)), None)
            where = held if worst is None else failed
            where.append((text, condition.numbers(of[0] if worst is None else worst)))
    return Judgement(failed, held, claim.because)
