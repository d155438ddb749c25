"""Centre loss for continual learning: a piece that holds a class's features where the first experience had them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads
from oblivio.core.part import Part
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import On, Term, source_name, term
from oblivio.core.where import How
from oblivio.methods.pieces._learning import learning
from oblivio.modules.features import features
from oblivio.registry import method
from oblivio.sources import Memory
from oblivio.where import head


class Centres(Part):
    """A feature vector a class, shape (classes, width), zero at first; it moves in the first experience alone."""

    taps = ("features",)

    def __init__(self, on: str, eta: float) -> None:
        self.on, self.eta = on, eta

    @property
    def values(self) -> Tensor:
        """The centres."""
        found: Tensor = self.state["centres"]
        return found

    def later(self, step: Step) -> bool:
        """Whether the centres, and with them the head, stay as the first experience left them."""
        return bool(step.problem.turn > self.state["began"])

    def prepare(self, problem: Problem) -> None:
        source = problem.source(self.on)
        labels = torch.cat([batch["y"] for batch in source.batches(4096)]).long().unique()
        if "known" not in self.state:
            self.state["began"] = problem.turn
            width = features(problem, source.take([0])).shape[1]
            self.state["centres"] = torch.zeros(int(labels.max()) + 1, width, device=problem.team.device)
            self.state["known"] = labels
        elif missing := sorted({*labels.tolist()} - {*self.state["known"].tolist()}):
            raise BadInput(f"center_loss_cl: the classes {missing[:5]} have no centre, since the first experience did "
                           "not have them; use it on streams whose classes stay (scenario domain)")  # fmt: skip

    def after(self, step: Step) -> None:
        if self.later(step):
            return
        f = step.gathered(self.on, step.seen(self.on, layer="features")).flatten(1)
        y = step.drawn(self.on)["y"].long().to(f.device)
        count = torch.zeros(len(self.values), device=f.device).index_add_(0, y, torch.ones_like(f[:, 0]))
        pull = torch.zeros_like(self.values).index_add_(0, y, self.values[y] - f)
        self.values.sub_(self.eta * pull / (1 + count)[:, None])


@term(taps=("features",))
def spread(step: Step, on: On, centres: Centres) -> Tensor:
    """The squared distance of every row's features to the centre of its class."""
    step.out(on)
    f, y = step.tap(on, "features").flatten(1), step.batch(on)["y"].long().to(step.device)
    return (f - centres.values[y]).square().sum(1)


class Boundary(How):
    """From the second experience on the head gets no gradient, and an optimiser passes over weights without one."""

    def __init__(self, centres: Centres) -> None:
        self.centres = centres

    def __call__(self, grads: Grads, step: Step) -> Grads:
        held = head().select(step.problem) if self.centres.later(step) else {}
        return {name: g for name, g in grads.items() if name not in held}


@method(
    kind="piece",
    paper="Kaggwa et al., Center Loss Regularization for Continual Learning, 2021",
    needs=("new|retain|train",),
    on="er",
    tasks=("classification",),
    aliases=("clr", "center_loss", "centre_loss"),
    cost="a feature vector a class; no pass",
)
def center_loss_cl(
    lam: Annotated[float, Field(ge=0)] = 0.1,
    eta: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Callable[[Stage], Stage]:
    """Pull the features of every row to the centre of its class, which the first experience has learned.

    Equation: L + (lam / 2) mean |f(x) - c_y|^2 over new rows, and again over the rows of every memory the plan replays;
    in the first experience c_k <- c_k - eta sum_{y = k} (c_k - f) / (1 + n_k) after each batch. From the second on
    the centres and the head stay as they are.
    Needs: labels, classes that are all there from the first experience on (scenario ``domain``), a head behind the
    feature layer.
    Fails: a large lam pulls features together before classes separate. Without a memory it gains nothing where the
    inputs change a lot. New classes have no centre: refused.
    """

    def put(plan: Stage) -> Stage:
        plan, found = learning(plan, "center_loss_cl")
        for descent, on in found:
            centres = Centres(on, eta)
            replayed = [r for r in descent.loss.reads if isinstance(r, Memory) and source_name(r) != on]
            pulls: list[Term] = [spread(each, centres) for each in (on, *replayed)]
            descent.change(sum((lam / 2 * pull for pull in pulls), descent.loss), None, None, None)
            descent.how = [*descent.how, Boundary(centres)]
        return plan

    return put
