"""SIU: forget how a concept looks from a single picture of it, and keep what is known about it by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import On, Term
from oblivio.registry import method
from oblivio.sources.replies import rows_of
from oblivio.tasks.language import ahead, mean
from oblivio.terms import fit
from oblivio.terms.distill import outputs


@method(
    paper="Li et al., Single Image Unlearning: Efficient Machine Unlearning in Multimodal Large Language Models, "
    "NeurIPS 2024",
    needs=("forget", "new", "retain"),
    tasks=("vision_language",),
    aliases=("single_image_unlearning",),
    cost="steps passes over a batch of new and of retain, each now and at the start; the start is kept once",
)
def siu(
    ce: Annotated[float, Field(gt=0)] = 0.9,
    dmk: Annotated[float, Field(ge=0)] = 0.75,
    lr: Annotated[float, Field(gt=0)] = 3e-4,
    steps: Annotated[int, Field(gt=0)] = 6,
    batch: Annotated[int, Field(gt=0)] = 4,
    name: tuple[int, ...] | None = None,
) -> Stage:
    """Teach the picture an invented name while all else stays near the start, the concept's name left out of the count.

    Equation: min ce CE + dmk DMK, the sum over ``new`` and ``retain``; DMK = (1 / sum_t K_S(t)) sum_t K_S(t) D(t) with
    D(t) = sum_v K_V(v) p_start(v|t) log(p_start(v|t) / p(v|t)). K_S is 0 where the token to be said is an invented one,
    K_V for the tokens of the concept's name, and both are 1 elsewhere; t runs over each row's answer by itself.
    Needs: ``forget``, one picture with questions and the true name; ``new``, it with an invented name, and with another
    description of what is seen; ``retain``, texts without a picture about the name, so that facts stay,
    and pictures of others. The name's tokens are those of forgotten answers that stand in no new one, the invented
    tokens those that stand in new answers alone; ``name`` gives the former where that is not enough, see ``spellings``.
    The paper moves a LoRA alone: ``adapter=where.lora()``. Its own constructed texts are written by a large model.
    Fails: the masked DMK is no divergence any more and can be negative. Facts are still told by the name; and where the
    new answers are the invented name and no more, every position that could say the true one is masked by K_S already,
    so that K_V changes nothing.
    """
    loss = sum((ce * fit(on) + dmk * dual_masked_kl(on, name) for on in ("new", "retain")), start=0)
    return Descent(loss, opt=adam(lr), over="new", steps=steps, batch=batch)


class dual_masked_kl(Term):
    """KL(start || now) over the answer's tokens without the invented ones, and over the vocabulary without the name.

    Args:
        on: rows of tokens.
        concept: tokens of its name; None: those of the answers in ``forget`` that are in no answer in ``new``.
    """

    frozen = (outputs,)

    def __init__(self, on: On, concept: Sequence[int] | None = None) -> None:
        self.on, self.concept = on, concept

    def find(self, problem: Problem) -> None:
        """Put the tokens of both masks in the state."""
        true, new, kept = (_said(problem, on) for on in ("forget", "new", "retain"))
        name = true - new if self.concept is None else set(self.concept)
        device = problem.team.device
        self.state["name"] = torch.tensor(sorted(name), dtype=torch.long, device=device)
        self.state["invented"] = torch.tensor(sorted(new - true - kept), dtype=torch.long, device=device)

    def __call__(self, step: Step) -> Tensor:
        if not self.state:  # not in ``prepare``, for which all weights are kept: with an adapter none need be
            self.find(step.problem)
        batch = step.batch(self.on)
        values = masked_kl(step.out(self.on), step.frozen(self.on, outputs), batch["y"], **self.state)
        return values.sum() / step.count(self.on)


def masked_kl(out: Tensor, start: Tensor, y: Tensor, name: Tensor, invented: Tensor) -> Tensor:
    """DMK of every row, shape (n,), from logits (n, L, V); 0 for a row of invented tokens alone. May be negative."""
    now, then = (F.log_softmax(logits[:, :-1].float(), 2) for logits in (out, start))
    apart = (then.exp() * (then - now)).index_fill(2, name, 0.0).sum(2)
    target, counts = ahead(y)
    return mean(apart, counts & ~torch.isin(target, invented))


def spellings(tokenizer: Any, name: str) -> tuple[int, ...]:
    """The ids of all tokens that a name is written with: with and without a space before it, as it is, small, large."""
    forms = [space + form for space in ("", " ") for form in (name, name.lower(), name.upper(), name.title())]
    found = {token for row in tokenizer(forms, add_special_tokens=False)["input_ids"] for token in row}
    return tuple(sorted(found - {tokenizer.unk_token_id}))


def _said(problem: Problem, on: On) -> set[int]:
    rows = rows_of(problem, on)
    return {token for i in range(len(rows)) for token in rows.answer(i)}
