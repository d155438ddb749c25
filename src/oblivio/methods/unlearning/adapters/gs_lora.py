"""GS-LoRA: low-rank changes of which a group lasso leaves only those of few blocks, merged at the end."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adamw, cosine
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator, mix
from oblivio.core.step import Step
from oblivio.core.term import On, Term, term
from oblivio.core.where import Selection, Where, matches
from oblivio.modules.lora import add_lora, merge_lora, plain_linears
from oblivio.registry import method
from oblivio.terms import fit


class adapters(Where):
    """The weights of all LoRA layers of the model; none where there are none."""

    def select(self, problem: Problem) -> Selection:
        return {n: None for n in problem.weights("model.*") if n.endswith((".lora_a", ".lora_b"))}


@term
def group_lasso(step: Step) -> Tensor:
    """The sum over blocks of the Euclidean norm of all moving weights of a block; smooth at zero."""
    groups: dict[str, list[Tensor]] = {}
    for block, names in blocks(list(step.weights)).items():
        groups[block] = [step.weights[n].square().sum() for n in names]
    return torch.stack([torch.stack(squares).sum().add(1e-12).sqrt() for squares in groups.values()]).sum()


def blocks(names: list[str]) -> dict[str, list[str]]:
    """LoRA weights by block: the module that holds the layers, or each layer where one module holds them all."""
    for parts in (2, 1):
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(".".join(name.split(".")[:-parts]), []).append(name)
        if len(found) > 1:
            return found
    return found


class above(Term):
    """How far the mean of a term over the batch is below ``bound``: raised up to there, and no further."""

    whole = True

    def __init__(self, term: Term, bound: float) -> None:
        self.term, self.bound = term, bound

    def __call__(self, step: Step) -> Tensor:
        return (self.bound - self.term(step)).relu()

    def __repr__(self) -> str:
        return f"above({self.term!r}, bound={self.bound:g})"


class prototype(Term):
    """KL of the softmax outputs from those of the row's class: the mean logits over ``on`` when the stage opened."""

    def __init__(self, on: On) -> None:
        self.on = on

    def prepare(self, problem: Problem) -> None:
        out = problem.predict(self.on)
        y = torch.cat([batch["y"] for batch in problem.source(self.on).batches(4096)]).to(out.device).long()
        total = out.new_zeros(out.shape[1], out.shape[1]).index_add_(0, y, out)
        self.state["means"] = total / y.bincount(minlength=out.shape[1])[:, None].clamp_min(1)

    def __call__(self, step: Step) -> Tensor:
        batch = step.batch(self.on)
        target = self.state["means"][batch["y"].long()]
        return step.task.distance(step.out(self.on), target, batch).sum() / step.count(self.on)

    def __repr__(self) -> str:
        return f"prototype({self.on!r})"


@edit(makes=True)
def adapt(problem: Problem, layers: str, rank: int, scale: float, replay: float) -> None:
    """Add LoRA to the linear layers named but the head (to it where it is the only one), and draw the replay rows."""
    retain, _ = problem.source("retain"), problem.source("forget")  # both must be there before anything changes
    names = [n for n in plain_linears(problem.model) if matches(n or "model", layers)]
    if not names:
        raise BadInput(f"no linear layer of the model fits layers={layers!r}; name some, or '*' for all")
    head = problem.features.partition(".")[2]
    chosen = [n for n in names if n != head] or names
    count = max(round(replay * len(retain)), 1)
    rows = retain.batch(torch.randperm(len(retain), generator=generator(problem.seed, problem.turn, "replay"))[:count])
    problem.make("replay", **{column: rows[column] for column in retain.columns})
    seed = mix(problem.seed, problem.turn, "lora")
    problem.operate(add_lora, layers=chosen, rank=rank, alpha=scale * rank, seed=seed)


@edit
def merge(problem: Problem) -> None:
    """The architecture as it was."""
    problem.operate(merge_lora)


@method(
    paper="Zhao et al., Continual Forgetting for Pre-trained Vision Models, CVPR 2024; GS-LoRA++, 2025",
    needs=("forget", "retain"),
    tasks=("classification",),
    serves=("class",),
    refusal="it raises the loss on the forgotten rows to a bound; after retraining without random rows it is low",
    aliases=("group_sparse_lora", "gs_lora_pp"),
    cost="epochs over the replayed share of retain, and a forget batch beside each",
)
def gs_lora(
    variant: Literal["plain", "prototypes"] = "plain",
    rank: Annotated[int, Field(gt=0)] = 8,
    scale: Annotated[float, Field(gt=0)] = 1.0,
    layers: str = "*",
    replay: Annotated[float, Field(gt=0, le=1)] = 0.2,
    beta: Annotated[float, Field(gt=0)] = 0.3,
    bound: Annotated[float, Field(gt=0)] = 10.0,
    alpha: Annotated[float, Field(ge=0)] = 0.003,
    p_f: Annotated[float, Field(ge=0)] = 0.015,
    bound_p: Annotated[float, Field(gt=0)] = 18.0,
    p_r: Annotated[float, Field(ge=0)] = 0.0,
    lr: Annotated[float, Field(gt=0)] = 0.003,
    epochs: Annotated[float, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 48,
) -> Stage:
    """Train low-rank changes of few blocks to forget, with little replay, and merge them into the weights.

    Equation: min CE(replay) + beta max(bound - CE(forget), 0) + alpha sum_g |(A, B) of block g|, the weight of each
    linear layer but the head being W + scale B A; ``prototypes`` (GS-LoRA++) adds p_f max(bound_p - D(forget), 0) +
    p_r D(replay), D = KL to the mean outputs that the class had at the start. A block is the module that holds the
    layers, or a layer where one module holds them all.
    Needs: forgotten rows with labels; retained rows, of which the share ``replay`` is read. ``bound`` is above log C
    and fits the size of logits: 10 for ordinary ones, 105 for the paper's. lr and epochs were chosen on
    12,000 rows of Fashion-MNIST (the paper: 0.01 and 100), alpha and beta on digits (1e-4 and 0.15), on other seeds
    than those of its claim.
    Fails: with a large alpha no block changes and nothing is forgotten: on digits from about 0.04 beta
    on; how large it may be depends on the network. Classes forgotten earlier must stay out of the
    retained rows, or they come back.
    """
    loss: Term = fit("replay") + beta * above(fit("forget"), bound) + alpha * group_lasso()
    if variant == "prototypes":
        loss = loss + p_f * above(prototype("forget"), bound_p) + p_r * prototype("replay")
    descent = Descent(loss, adapters(), opt=adamw(lr, schedule=cosine), over="replay", epochs=epochs, batch=batch)
    return adapt(layers, rank, scale, replay) >> descent >> merge()
