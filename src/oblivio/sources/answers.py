"""The prompts of a source with other answers: refusals, wrong facts, templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Batch, Ids
from oblivio.core.term import On, source_name
from oblivio.sources.derived import Derived
from oblivio.sources.tokens import Tokens

if TYPE_CHECKING:
    from oblivio.core.problem import Problem
    from oblivio.core.step import Step

Choices = Sequence[Sequence[int]]  # answers as tokens, each with its end


class Answers(Derived):
    """The rows of ``of``, every one answered by one of ``choices``, drawn anew at every step.

    A batch has the same rows in the same order as that of ``of`` at this step, so that a term may relate them row by
    row. Read in order, row i has answer i modulo their number.

    Args:
        of: a source of ``Tokens``.
        choices: answers as tokens with their end, the same for all rows; or ``choices(problem)``, which gives them.
        name: of the source.

    Raises BadInput where there is no answer to choose from, or ``of`` holds no tokens.
    """

    random = True

    def __init__(self, of: On, choices: Choices | Callable[[Problem], Choices], name: str) -> None:
        super().__init__((of,), name)
        self.choices = choices

    def _bind(self, problem: Problem) -> None:
        choices = self.choices(problem) if callable(self.choices) else self.choices
        if not len(choices):
            raise BadInput(f"{self!r}: there is no answer to choose from")
        rows = self.found[0]
        if not isinstance(rows, Tokens):
            raise BadInput(f"{self!r} needs rows of tokens; {rows.name!r} is {type(rows).__name__}")
        self._rows, self._choices = rows, [list(choice) for choice in choices]

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of ``of``."""
        return self.found[0].columns

    @property
    def ids(self) -> Ids:
        return self.found[0].ids

    def draw(self, n: int, step: Step) -> Batch:
        rows = step.drawn(self.of[0]).rows
        chosen = torch.randint(len(self._choices), (len(rows),), generator=step.rng(self.name), device=step.device)
        x, y = self._answered(rows.tolist(), chosen.tolist())
        return Batch(self, rows, {"row": rows, "x": x, "y": y})

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name not in ("x", "y"):
            self.found[0].read(name, rows, into)
            return
        into["x"], into["y"] = self._answered(rows.tolist(), [row % len(self._choices) for row in rows.tolist()])

    def _answered(self, rows: Sequence[int], chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        prompts, answers = [self._rows.prompt(row) for row in rows], [self._choices[i] for i in chosen]
        made = Tokens([p + a for p, a in zip(prompts, answers, strict=True)], [len(p) for p in prompts], self._rows.pad)
        batch = made.to(self._rows.flat.device).batch(torch.arange(len(rows)))
        return batch["x"], batch["y"]

    def __repr__(self) -> str:
        return f"Answers({source_name(self.of[0])!r}, name={self.name!r})"
