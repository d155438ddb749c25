"""Knowledge isolation: gradient difference in the early feed-forward networks alone, the retain weight adapting."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio.core.descent import Descent
from oblivio.core.opt import adamw
from oblivio.core.part import Part
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import On
from oblivio.core.where import Selection, Where
from oblivio.how import clip
from oblivio.networks.language.parts import blocks, mlp_outputs
from oblivio.registry import method
from oblivio.terms import fit
from oblivio.until import unseen

SHARE = 6 / 16  # of the blocks, in the published settings


@method(
    paper="Gurgurov et al., SHA256 at SemEval-2025 Task 4: Selective Amnesia, Constrained Unlearning for Large "
    "Language Models via Knowledge Isolation, 2025",
    needs=("forget", "retain"),
    tasks=("causal_lm",),
    aliases=("constrained_unlearning", "sha256"),
    cost="epochs over forget and a retain batch beside each; optimiser state for the chosen networks alone",
)
def knowledge_isolation(
    first: Annotated[int, Field(ge=0)] = 0,
    count: Annotated[int, Field(gt=0)] | None = None,
    m: Annotated[float, Field(ge=0)] = 1.2,
    most: Annotated[float, Field(ge=0)] = 2.3,
    lr: Annotated[float, Field(gt=0)] = 5e-4,
    epochs: Annotated[float, Field(gt=0)] = 18,
    batch: Annotated[int, Field(gt=0)] = 12,
) -> Stage:
    """Raise the loss on forgotten texts in the feed-forward networks of the first blocks, where facts are looked up.

    Equation: min m CE(retain) - CE(forget), clipped to norm 1, over the feed-forward networks of ``count`` blocks from
    ``first`` on (counted from 0; None: 6/16 of them). m is constant in the first epoch, whose mean retain loss is L;
    then min(max(0.3 6^D + 0.8 to one decimal, m), most) with D = CE(retain) - L where that is above 0, else m. Stops
    as soon as the forgotten rows do no better than unseen ones would, if the problem has ``valid`` rows to tell.
    Needs: forgotten and retained texts. Which blocks hold the facts ``tracing.trace`` tells. ``most`` equal to m is a
    constant weight; the paper states 2.8, its code has 2.3, and divides L by rows after summing over batches. D is of
    the step before, so that parts of a batch weigh alike.
    Fails: in late blocks it does not reach the facts; the ascent has no bound.
    """
    loss = Adaptive("retain", m, most) * fit("retain") - fit("forget")
    return Descent(
        loss, where=feed_forward(first, count), how=clip(1.0), opt=adamw(lr, wd=0.0), over="forget", epochs=epochs,
        batch=batch, until=unseen(), every=5,
    )  # fmt: skip


class feed_forward(Where):
    """All weights of the feed-forward networks of ``count`` blocks, from block ``first`` on."""

    def __init__(self, first: int, count: int | None) -> None:
        self.first, self.count = first, count

    def select(self, problem: Problem) -> Selection:
        count = max(round(SHARE * len(blocks(problem.model))), 1) if self.count is None else self.count
        ends = mlp_outputs(problem.model)[self.first : self.first + count]
        networks = [end.removesuffix(".weight").removesuffix(".base_layer").rpartition(".")[0] for end in ends]
        return {n: None for network in networks for n in problem.weights(f"model.{network}.*")}

    def __repr__(self) -> str:
        return f"feed_forward(first={self.first}, count={self.count})"


class Adaptive(Part):
    """A coefficient that grows when the loss on ``on`` is above its mean in the first epoch over ``over``."""

    def __init__(self, on: On, m: float, most: float, over: On = "forget") -> None:
        self.on, self.m, self.most, self.over = on, m, most, over

    def __call__(self, step: Step) -> float:
        value: float = self.state.get("m", self.m)
        return value

    def after(self, step: Step) -> None:
        mine = step.drawn(self.on).piece(step.team.rank, step.team.size)
        loss = float(step.gathered(self.on, step.task.each(step.seen(self.on), mine)).mean())
        if step.t < -(-len(step.source(self.over)) // (step.size or step.count(self.over))):
            self.state["sum"], self.state["count"] = self.state.get("sum", 0.0) + loss, self.state.get("count", 0) + 1
        else:
            self.state["m"] = weight(loss - self.state["sum"] / self.state["count"], self.m, self.most)


def weight(d: float, m: float, most: float) -> float:
    """The retain weight where the loss is ``d`` above its level."""
    return min(max(round(0.3 * 6 ** min(d, 10.0) + 0.8, 1), m), most) if d > 0 else m
