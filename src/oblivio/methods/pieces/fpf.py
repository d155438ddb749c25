"""Forgetting prioritized finetuning: a piece that repairs the few weights that change most between experiences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.part import Part, walk
from oblivio.core.plan import Cycle, Plan, Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.where import How, Where
from oblivio.methods.pieces._learning import learning
from oblivio.registry import method
from oblivio.sources import Buffer, Memory, Twin, outputs
from oblivio.where.head import Head
from oblivio.where.norms import Norms

MODULES: dict[str, Where] = {"head and norms": Head() | Norms(), "head": Head(), "norms": Norms()}


class Balanced(Twin):
    """The rows of a memory, drawn with replacement: a class at random, then one of its rows."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.name = f"{memory.name}_balanced"

    def draw(self, n: int, step: Step) -> Batch:
        y = self.batch(torch.arange(len(self)))["y"]
        _, place, count = y.unique(return_inverse=True, return_counts=True)
        drawn = torch.multinomial(1 / count[place], n, replacement=True, generator=step.rng(self.name))
        return self.batch(drawn.cpu())


class Filled(How):
    """Fills a memory beside a Descent that does not read it."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory


class Undone(Part):
    """What a repair changed: in ``state`` the repaired tensors by name, ``before`` and ``after`` it.

    Taken back, a tensor is as it was before the repair; what was done to it since, such as unlearning, stays.
    """

    def note(self, problem: Problem, when: str, where: Where) -> None:
        """Copy the weights of ``where`` and the statistics of normalisation layers."""
        chosen = where.select(problem)
        tensors = {n: w for n, w in problem.weights("model.*").items() if n in chosen}
        self.state[when] = {n: t.detach().clone() for n, t in {**tensors, **_statistics(problem)}.items()}

    def take_back(self, problem: Problem) -> None:
        """Weights from before the repair, and what moved since."""
        now = {**problem.weights("model.*"), **_statistics(problem)}
        for name, before in self.state.get("before", {}).items():
            if name in now:
                now[name].copy_(before + (now[name] - self.state["after"][name]))
        self.state.clear()


def _statistics(problem: Problem) -> dict[str, Tensor]:
    return {f"model.{n}": b for n, b in problem.model.named_buffers() if "running_" in n or "num_batches" in n}


@edit
def unrepaired(problem: Problem, undone: Undone) -> None:
    """Training goes on from where it was before the last repair."""
    undone.take_back(problem)


@edit
def noted(problem: Problem, undone: Undone, when: str, where: Where) -> None:
    """Note what the repair is about to change, or has changed."""
    undone.note(problem, when, where)


@method(
    kind="piece",
    paper="Zhao et al., Does Continual Learning Equally Forget All Parameters?, ICML 2023",
    needs=("new",),
    on="naive",
    tasks=("classification",),
    aliases=("forgetting_prioritized_finetuning", "k_fpf"),
    cost="steps over stored rows with a few percent of the weights moving; the stored rows, where the plan keeps none",
)
def fpf(
    k: Annotated[int, Field(ge=0)] = 0,
    modules: Literal["head and norms", "head", "norms"] = "head and norms",
    steps: Annotated[int, Field(gt=0)] = 300,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    batch: Annotated[int, Field(gt=0)] = 32,
    kd: Annotated[float, Field(ge=0)] = 0.0,
    buffer: Annotated[int, Field(gt=0)] = 200,
) -> Callable[[Stage], Stage]:
    """After a plan's own training, train the head and the normalisation layers alone on stored rows, equal by class.

    Equation: min over the weights of ``modules`` CE(stored) + kd mean (f(x) - z)^2, z the outputs when the row was
    stored; plain SGD, so that nothing is left of earlier moments. The statistics of batch norm move too.
    FPF (``k`` 0) repairs once, after the last experience. Nobody knows which that is, so it repairs after each, and
    takes the repair back when the next begins: what is served after the last is what the paper's single repair gives.
    k-FPF repairs ``k`` times in an experience, at equal distances, the last at its end, and goes on from there.
    Needs: a plan that learns new rows: naive, er, ...; with ``k`` a plan that ends in such a Descent. Of rows that the
    plan stores these are used, else it stores ``buffer`` of them.
    The paper finds by how far modules move at a change of task that these are the ones; here they are a setting.
    Fails: few stored rows a class are fitted by heart. A teacher (lwf) is the repaired model.
    """

    def put(plan: Stage) -> Stage:
        plan, found = learning(plan, "fpf")
        memory = _memory(plan, found[-1][0], buffer)
        if kd:
            _with_outputs(memory)
        where, rows = copy.deepcopy(MODULES[modules]), Balanced(memory)
        total = terms.fit(rows) + kd * terms.match(rows)
        repair = Descent(total, where=where, steps=steps, batch=batch, moves=(rows.name,), opt=sgd(lr))
        if k:
            return _in_turn(plan, repair, k)
        undone = Undone()
        noting = [noted(undone, when, copy.deepcopy(where)) for when in ("before", "after")]
        return unrepaired(undone) >> plan >> noting[0] >> repair >> noting[1]

    return put


def _memory(plan: Stage, learns: Descent, size: int) -> Memory:
    """The first memory that the plan has, or one of its own."""
    for _, part in walk(plan):
        if isinstance(part, Memory):
            return part
    learns.how = [*learns.how, Filled(made := Buffer(size))]
    return made


def _with_outputs(memory: Memory) -> None:
    if not isinstance(memory, Buffer):
        raise BadInput(f"fpf: kd needs outputs beside the rows, and {memory!r} is filled without them; leave kd out")
    memory.store = memory.store or outputs


def _in_turn(plan: Stage, repair: Descent, k: int) -> Stage:
    *before, last = plan.stages if isinstance(plan, Plan) else [plan]
    if not isinstance(last, Descent) or not isinstance(last.epochs, (int, float)):
        raise BadInput(f"fpf divides the epochs of the last Descent by k; {plan!r} does not end in one with epochs=")
    last.epochs = last.epochs / k
    return Plan([*before, Cycle(last, repair, rounds=k)])
