"""Part: anything with a life in a run. Five hooks and one state, found by looking at the attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oblivio.core.problem import Problem
    from oblivio.core.source import Source
    from oblivio.core.step import Step


class Part:
    """Source, Term, Where, How, Opt and Stage are Parts.

    What changes in a run is in ``state`` (tensors, numbers, strings, nested in dicts) and is saved with it; what is
    not in ``state`` is a setting. ``keeps`` names the snapshots it reads, ``taps`` the layers, and ``motion`` asks for
    the weights before each update (``step.was``).
    """

    keeps: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    motion: bool = False
    writes: bool = True  # whether its hooks before and after a stage may change weights

    @property
    def state(self) -> dict[str, Any]:
        """All that changes, saved with the run under the Part's place in the plan."""
        return self.__dict__.setdefault("_state", {})  # type: ignore[no-any-return]

    def save(self) -> dict[str, Any]:
        """The state as it is to be written."""
        return self.state

    def load(self, state: dict[str, Any]) -> None:
        """Take a written state."""
        state = dict(state)  # it may be the very dict that is emptied here
        self.state.clear()
        self.state.update(state)

    def __repr__(self) -> str:
        """Name and settings; by what a plan prints, a run knows its folder again."""
        shown = {k: getattr(v, "__qualname__", repr(v)) for k, v in vars(self).items() if k[0] != "_"}
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in shown.items())})"

    def prepare(self, problem: Problem) -> None:
        """Before the first step of its stage."""

    def before(self, step: Step) -> None:
        """Before each forward."""

    def after(self, step: Step) -> None:
        """After each update of the weights."""

    def consolidate(self, problem: Problem) -> None:
        """After the last step of its stage."""

    def forget(self, rows: Source, problem: Problem) -> str:
        """A deletion request: drop everything that was kept of these rows, and say what was done.

        Args:
            rows: their ``ids``, and their columns where the request brought them.
            problem: what the Part works on, for one that must work something out anew.

        Returns:
            words for the receipt, such as ``3 rows removed``; empty where it held nothing of them.
        """
        return ""


def children(part: Part) -> Iterator[tuple[str, Part]]:
    """The Parts among the attributes of ``part``, in order of definition, with their names."""
    for name, value in vars(part).items():
        if name != "_state":
            yield from _parts(name, value)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Part]]:
    if isinstance(value, Part):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _parts(f"{name}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _parts(f"{name}.{key}", item)


def walk(part: Part, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Part]]:
    """``part`` and all below it with their paths; one that is shared comes once, under its first path."""
    seen = set() if seen is None else seen
    if id(part) in seen:
        return
    seen.add(id(part))
    yield path, part
    for name, child in children(part):
        yield from walk(child, f"{path}/{name}" if path else name, seen)


def overrides(part: Part, hook: str) -> bool:
    """Whether ``part`` implements ``hook``; the engine calls no other."""
    return getattr(type(part), hook) is not getattr(Part, hook)
