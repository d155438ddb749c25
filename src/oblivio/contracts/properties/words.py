"""What a method says of itself: its settings, its needs, its errors."""

from __future__ import annotations

from collections.abc import Iterator

from oblivio.contracts.case import Case, Planted, bits, differing, failing, names, prop
from oblivio.core.errors import BadInput


@prop
def printed(case: Case) -> Iterator[str]:
    """A plan prints the settings it was made with, since by that a run knows its folder again."""
    for name, pairs in case.changed.items():
        if all(repr(a) == repr(b) for a, b in pairs):
            yield f"{name} is not printed in {pairs[0][0]!r}"


@prop
def needs(case: Case) -> Iterator[str]:
    """It works without what it does not declare; without what it does, it refuses before a weight moves."""
    declared = {name for need in case.needs for name in need.split("|")}
    bare = case.problem()
    for name in bare.sources.keys() - declared:
        del bare.sources[name]
    try:
        case.run(problem=bare)
    except Exception as error:
        yield f"with {', '.join(bare.sources) or 'nothing'} alone: {error}"
    for need in case.needs:
        yield from _refused(case, need)


def _refused(case: Case, need: str) -> Iterator[str]:
    lacking = case.problem()
    for name in need.split("|"):
        lacking.sources.pop(name, None)
        lacking.records.pop(name, None)
    before = bits(lacking)
    try:
        case.run(problem=lacking)
        yield f"{need} is declared, and it works without"
    except BadInput:
        yield from (
            f"without {need} it moved {what} before it refused" for what in names(differing(before, bits(lacking)))
        )


@prop
def errors(case: Case) -> Iterator[str]:
    """An error in a forward pass comes out; it is not swallowed."""
    for at in sorted({0, case.forwards // 2, case.forwards - 1}) if case.forwards else []:
        problem = case.problem()
        failing(problem, at)
        try:
            case.run(problem=problem)
        except Planted:
            continue
        yield f"an error in forward {at} of {case.forwards} was swallowed"
        return
