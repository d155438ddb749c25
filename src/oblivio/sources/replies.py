"""What may be said in place of a true answer, and how a question may be asked otherwise, from the request's own texts.

Everything here is tokens: answers with their end. Texts are asked where the rows know them; bare tokens serve too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch

from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem, rng
from oblivio.core.term import On
from oblivio.sources.tokens import Tokens

Answer: TypeAlias = list[int]
FROM_OTHERS = 5  # wrong answers taken from other rows where a text brings none


def refusals(problem: Problem) -> list[Answer]:
    """Ways to say that one does not know, from the record ``refusals``. Raises BadInput where there is none."""
    found = problem.records.get("refusals")
    if not found:
        raise BadInput(
            "the problem has no record 'refusals'; give refusals=('I do not know.', ...) to Problem.causal_lm, or "
            "records={'refusals': [[token, ..., end], ...]}"
        )
    return [list(answer) for answer in found]


def rows_of(problem: Problem, on: On) -> Tokens:
    """A source of tokens. Raises BadInput where it holds something else."""
    rows = problem.source(on)
    if not isinstance(rows, Tokens):
        raise BadInput(f"source {rows.name!r} is {type(rows).__name__}; rows of tokens are needed, made from texts")
    return rows


def wrong(problem: Problem, on: On = "forget") -> list[list[Answer]]:
    """For every row answers that are not true: its text's own ``wrong`` ones, else answers of other rows.

    Raises:
        BadInput: a row that has neither, since all rows have the same answer.
    """
    rows = rows_of(problem, on)
    found = _of_texts(rows)
    short = [i for i, answers in enumerate(found) if not answers]
    if short:
        order = torch.randperm(len(rows), generator=rng(problem, "wrong", rows.name)).tolist()
        for i in short:
            found[i] = _of_others(rows, i, order)
    return found


def _of_texts(rows: Tokens) -> list[list[Answer]]:
    found: list[list[Answer]] = [[] for _ in range(len(rows))]
    texts = rows.texts if rows.origin is not None else []
    place = {text.id: i for i, text in enumerate(texts)}
    for k in range(max((len(text.wrong) for text in texts), default=0)):
        said = rows.rewritten(partial(_wrongly, k=k))
        assert said is not None
        for i, text in enumerate(said.texts):
            at = place[text.id]
            if said.answer(i) != rows.answer(at):
                found[at].append(said.answer(i))
    return found


def _wrongly(text: Any, k: int) -> Any:
    """The text with its k-th wrong answer; None where it has fewer."""
    return text.but(answer=text.wrong[k]) if k < len(text.wrong) else None


def _of_others(rows: Tokens, i: int, order: Sequence[int]) -> list[Answer]:
    """A few different answers of other rows, from the one that follows ``i`` in ``order``."""
    mine, start, said = rows.answer(i), order.index(i), []
    for other in (*order[start + 1 :], *order[:start]):
        answer = rows.answer(other)
        if answer != mine and answer not in said:
            said.append(answer)
        if len(said) == FROM_OTHERS:
            break
    if not said:
        raise BadInput(f"source {rows.name!r}: no wrong answer is known, for all rows have the same one; give texts "
                       "with wrong=(...)")  # fmt: skip
    return said


def rephrased(problem: Problem, on: On = "forget") -> Tokens | None:
    """The rows whose texts know their question in other words, asked so; None where none does."""
    rows = rows_of(problem, on)
    if rows.origin is None:
        return None
    return rows.rewritten(
        lambda text: replace(text.but(prompt=text.rephrased), rephrased="") if text.rephrased else None
    )


def put(problem: Problem, name: str, said: Iterable[tuple[Sequence[int], Sequence[int]]], pad: int = 0) -> None:
    """Make the source ``name`` of prompts and answers."""
    pairs = list(said)
    made = Tokens([[*prompt, *answer] for prompt, answer in pairs], [len(prompt) for prompt, _ in pairs], pad)
    batch = made.batch(torch.arange(len(made)))
    problem.make(name, x=batch["x"], y=batch["y"])
