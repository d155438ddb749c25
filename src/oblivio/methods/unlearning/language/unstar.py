"""UnSTAR: learn wrong answers to the questions that the model still answers rightly, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import common
from oblivio.core.plan import Cycle, Stage, edit
from oblivio.core.problem import Nets, Problem
from oblivio.core.source import Batch
from oblivio.how import clip
from oblivio.modules.adapters import adapters, merge_adapters
from oblivio.registry import method
from oblivio.sources.replies import put, rephrased, rows_of, wrong
from oblivio.sources.tokens import Tokens
from oblivio.terms import fit
from oblivio.where import lora

ANTI = "anti-samples"
MORE = 2  # tokens that are written beyond the longest answer


@method(
    paper="Sinha et al., UnStar: Unlearning with Self-Taught Anti-Sample Reasoning for LLMs, 2024",
    needs=("forget",),
    tasks=("causal_lm",),
    aliases=("self_taught_anti_samples",),
    cost="a pass over the questions and a few steps of a LoRA a round",
)
def unstar(
    rounds: Annotated[int, Field(gt=0)] = 20,
    iterations: Annotated[int, Field(gt=0)] = 4,
    substitutes: Annotated[int, Field(gt=0)] = 2,
    rephrase: bool = True,
    r: Annotated[int, Field(gt=0)] = 8,
    lr: Annotated[float, Field(gt=0)] = 3e-3,
    batch: Annotated[int, Field(gt=0)] = 4,
) -> Stage:
    """Ask, and where the true answer still comes, train on wrong ones; then ask in other words.

    Equation: every round min NLL(wrong answer | question) over the open questions, ``iterations`` epochs of them in a
    LoRA: the forgotten questions to which greedy decoding writes a word that only the true answer has, and of the
    others the rephrased forms to which it does. Each gets ``substitutes`` wrong answers; one that holds the true answer
    is rejected. It ends when no question is open. The LoRA is merged at the end.
    Needs: forgotten texts, with ``wrong`` answers (a justification may follow in them) and the question ``rephrased``
    where they have these; without, wrong answers are those of other rows, and there is one form of a question.
    Fails: what is planted is a false fact and no ignorance, which a comparison with a retrained model shows. In the
    paper the model itself writes questions, substitutes and justifications, and a LoRA is merged after every round;
    here texts bring them, and one LoRA goes on through the rounds.
    """
    learn = Descent(
        fit(ANTI), where=lora(r, name="unstar"), how=clip(1.0), opt=common("adamw", lr), epochs=iterations, batch=batch
    )
    return Cycle(ask(substitutes, rephrase), learn, rounds=rounds, until=solved) >> merge()


@edit(makes=True, writes=False)
def ask(problem: Problem, substitutes: int, rephrase: bool) -> None:
    """Make the anti-samples of the questions that are open."""
    rows, others, said = rows_of(problem, "forget"), rephrased(problem) if rephrase else None, wrong(problem)
    tells = [telling(rows.answer(i), said[i]) for i in range(len(rows))]
    stated = states(problem, rows, tells)
    asked = [(i, rows.prompt(i)) for i in range(len(rows)) if stated[i]]
    if others is not None:
        place = {name: i for i, name in enumerate(rows.ids.tolist())}
        forms = [place[name] for name in others.ids.tolist()]
        again = states(problem, others, [tells[i] for i in forms])
        asked += [(i, others.prompt(j)) for j, i in enumerate(forms) if again[j] and not stated[i]]
    pairs = [(prompt, answer) for i, prompt in asked for answer in fitting(rows.answer(i), said[i])[:substitutes]]
    put(problem, ANTI, pairs, rows.pad)


def telling(true: Sequence[int], others: Sequence[Sequence[int]]) -> set[int]:
    """The tokens by which the true answer is known: those in no wrong one; all of it, where each is in some."""
    common = {token for answer in others for token in answer}
    return set(true[:-1]) - common or set(true[:-1])


def states(problem: Problem, rows: Tokens, tells: Sequence[set[int]]) -> list[bool]:
    """Of every row, whether what greedy decoding writes holds a token that tells the true answer."""
    written: list[list[int]] = [[] for _ in range(len(rows))]
    for _ in range(max(len(rows.answer(i)) for i in range(len(rows))) + MORE):
        asked = [rows.prompt(i) + more for i, more in enumerate(written)]
        last = torch.tensor([len(tokens) - 1 for tokens in asked], device=problem.team.device)
        so_far = Tokens([[*tokens, rows.pad] for tokens in asked], [len(tokens) for tokens in asked], rows.pad).to(
            problem.team.device
        )
        so_far.name = "forget"

        def next_token(nets: Nets, batch: Batch, last: Tensor = last) -> Tensor:
            out = problem.task.forward(nets, "model", batch)
            return out[torch.arange(len(out), device=out.device), last[batch.rows]].argmax(1)

        for more, token in zip(written, problem.tabulate(so_far, next_token).tolist(), strict=True):
            more.append(token)
    ends = [more.index(rows.answer(i)[-1]) if rows.answer(i)[-1] in more else None for i, more in enumerate(written)]
    return [bool(tell & set(more[:end])) for tell, more, end in zip(tells, written, ends, strict=True)]


def fitting(true: Sequence[int], answers: Sequence[list[int]]) -> list[list[int]]:
    """Wrong answers that do not hold the true one, all with their end. Raises BadInput where none is left."""
    inner = list(true[:-1])
    left = [a for a in answers if not any(a[i : i + len(inner)] == inner for i in range(len(a) - len(inner)))]
    if not left:
        raise BadInput("every wrong answer to a forgotten question holds the true one; give others with wrong=(...)")
    return left


def solved(problem: Problem) -> bool:
    """Whether no question is open."""
    return not len(problem.source(ANTI))


@edit
def merge(problem: Problem) -> None:
    """Add the LoRA to the weights beside it; there is none where another Where was put in its place."""
    if adapters(problem.model):
        problem.operate(merge_adapters)
