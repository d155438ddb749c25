"""ULD: a small assistant learns what is to be forgotten, and its logits are subtracted."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem, rng
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.core.where import Selection, Where
from oblivio.how import clip
from oblivio.modules.adapters import add_adapter
from oblivio.modules.logit_difference import beneath, subtract, truncated
from oblivio.networks.language.parts import blocks as blocks_of
from oblivio.registry import method
from oblivio.sources.replies import put, rephrased, rows_of, wrong
from oblivio.tasks.language import ahead, mean
from oblivio.terms import fit

ASSISTANT, REMEMBER, PERTURBED = "assistant", "remember", "perturbed"


@method(
    paper="Ji et al., Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning Framework from Logit "
    "Difference, NeurIPS 2024",
    needs=("forget", "retain"),
    tasks=("causal_lm",),
    cost="trains LoRA on a part of the blocks, without a pass through the model; every later answer costs a pass "
    "through the assistant too",
)
def uld(
    w: Annotated[float, Field(lt=0)] = -0.8,
    tau: Annotated[float, Field(gt=0, le=1)] = 0.01,
    blocks: Annotated[float, Field(gt=0)] = 0.5,
    r: Annotated[int, Field(gt=0)] = 16,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    uniform: Annotated[float, Field(ge=0)] = 5.0,
    perturbed: Annotated[int, Field(ge=0)] = 2,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    wd: Annotated[float, Field(ge=0)] = 0.01,
    epochs: Annotated[float, Field(gt=0)] = 60,
    batch: Annotated[int, Field(gt=0)] = 12,
) -> Stage:
    """Train an assistant to remember the forgotten texts and know nothing else, and subtract it from the model.

    Equation: min NLL_a(forget) + uniform KL(u || p_a)(retain and wrong answers to forgotten questions) over a LoRA on
    the first blocks of the model; served are z = z_model + w z_a, w < 0, where log p of the model is within log(tau) of
    the greatest (see ``LogitDifference``). ``blocks`` below 1 is a share of them, from 1 up a number; ``perturbed`` are
    wrong answers a question, of which the tokens after the first untrue one count: before it the text is that which
    is to be remembered. As many retained rows as forgotten ones are met in an epoch, other ones in the next.
    Needs: forgotten and retained rows. Where forgotten texts bring their question in other words (``rephrased``) or
    wrong answers (``wrong``), these are used; without, wrong answers are those of other rows.
    Fails: the weights of the model are untouched, so who has them has everything; with a w far below 0 the true answer
    becomes less likely than wrong ones, which a membership test sees. The assistant's logits are raw, as published: a
    common offset of them shifts kept tokens against those outside the filter.
    """
    unsure = 0.5 * ignorance("retain", net=ASSISTANT) + 0.5 * ignorance(PERTURBED, net=ASSISTANT)
    loss = fit(REMEMBER, net=ASSISTANT) + uniform * unsure
    learn = Descent(
        loss,
        where=assisting(),
        how=clip(1.0),
        opt=adamw(lr, wd=wd),
        over=REMEMBER,
        epochs=epochs,
        batch=batch,
    )
    return assist(blocks, r, dropout, perturbed) >> learn >> serve(w, tau)


@edit(makes=True, writes=False)
def assist(problem: Problem, blocks: float, r: int, dropout: float, perturbed: int) -> None:
    """Make the assistant and what it is to remember and not to know."""
    forget, said = rows_of(problem, "forget"), wrong(problem)
    problem.source("retain")  # refused here where it is missing, before anything is built
    every = len(blocks_of(beneath(problem.model)))
    count = int(blocks) if blocks >= 1 else max(1, round(blocks * every))
    problem.operate(truncated, name=ASSISTANT, blocks=count)
    config = {"r": r, "lora_alpha": 2 * r, "lora_dropout": dropout, "target_modules": "all-linear"}
    seed = rng(problem, "uld", "lora").initial_seed() % 2**63
    problem.operate(add_adapter, name=ASSISTANT, config=config, seed=seed, net=ASSISTANT)
    known = [forget] if (other := rephrased(problem)) is None else [forget, other]
    put(problem, REMEMBER, ((rows.prompt(i), rows.answer(i)) for rows in known for i in range(len(rows))), forget.pad)
    false = [
        after_difference(forget.prompt(i), forget.answer(i), answer)
        for i, answers in enumerate(said)
        for answer in answers[:perturbed]
    ]
    put(problem, PERTURBED, [pair for pair in false if pair[1]], forget.pad)


def after_difference(prompt: list[int], true: list[int], wrong: list[int]) -> tuple[list[int], list[int]]:
    """A wrong answer as what is given, up to the first token that is not the true answer's, and what follows it."""
    same = next((i for i, (a, b) in enumerate(zip(true, wrong, strict=False)) if a != b), len(wrong))
    return [*prompt, *wrong[: same + 1]], wrong[same + 1 :]


@edit(writes=False)
def serve(problem: Problem, w: float, tau: float) -> None:
    """Subtract the assistant from the model."""
    problem.operate(subtract, assistant=ASSISTANT, w=w, tau=tau)


class assisting(Where):
    """The weights of the assistant's adapter, while it is a net of its own."""

    def select(self, problem: Problem) -> Selection:
        names = (name for name, _ in problem.nets.named_parameters())
        return {name: None for name in names if name.startswith(f"{ASSISTANT}.") and "lora_" in name}


@term
def ignorance(step: Step, on: On, net: str = "model") -> Tensor:
    """KL(uniform || p) of the next token, ``-log V - mean_v log p_v``, averaged over a row's tokens that count."""
    return apart_from_uniform(step.out(on, net), step.batch(on))


def apart_from_uniform(out: Tensor, batch: Batch) -> Tensor:
    """The same of logits (n, L, V); shape (n,)."""
    likely = out[:, :-1].float().log_softmax(2)
    return mean(-math.log(out.shape[2]) - likely.mean(2), ahead(batch["y"])[1])
