"""RMN: every task has a map of the weights that it uses; what a map has chosen never moves again."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.grads import top
from oblivio.core.opt import adam
from oblivio.core.plan import Plan, Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.surgery import Wrap, surgery
from oblivio.core.term import Term
from oblivio.core.where import Selection, Where
from oblivio.modules.chain import LAYERS
from oblivio.registry import method
from oblivio.tasks.incremental import Incremental


class Map(nn.Module):
    """A binary mask for every weight of a network: buffers ``of0``, ``of1``, ... in the order of the weights."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        for i, weight in enumerate(net.parameters()):
            self.register_buffer(f"of{i}", torch.ones_like(weight, dtype=torch.bool))

    @property
    def masks(self) -> list[Tensor]:
        """One a weight."""
        return list(self.buffers())


class Mapped(Wrap):
    """A network whose weights are multiplied by the map of a task.

    Attributes:
        net: with the weights W that all tasks share.
        relevance: R, of the task that is learned; its map is sigmoid(R) while ``soft`` and binary afterwards.
        maps: the binary ones, and ``tasks`` the task that each belongs to.
        takes_task: whether every row says its task; else the map is served whose answer has the least entropy.
    """

    def __init__(self, net: nn.Module, takes_task: bool) -> None:
        super().__init__()
        self.net, self.takes_task, self.soft = net, takes_task, False
        self.relevance = nn.ParameterList([torch.zeros_like(weight) for weight in net.parameters()])
        self.maps, self.tasks = nn.ModuleList(), list[int]()

    def weights(self, place: int) -> dict[str, Tensor]:
        """The weights that one map leaves, by their names in ``net``."""
        soft = self.soft and place == len(self.maps) - 1
        masks = [r.sigmoid() for r in self.relevance] if soft else self.masks(place)
        return {name: weight * mask for (name, weight), mask in zip(self.net.named_parameters(), masks, strict=True)}

    def masks(self, place: int) -> list[Tensor]:
        """The binary map at this place."""
        found = self.maps[place]
        assert isinstance(found, Map)
        return found.masks

    def at(self, place: int, x: Tensor) -> Tensor:
        """The outputs under one map."""
        out: Tensor = functional_call(self.net, self.weights(place), (x,))
        return out

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Under the newest map, or under that of every row's task; a task that never came has the newest."""
        if task is None:
            return self.at(len(self.maps) - 1, x)
        places = {t: self._place(t) for t in task.unique().tolist()}
        (_, first), *others = places.items()
        out = self.at(first, x)
        for t, place in others:  # all rows under every map, so that a row's bits do not depend on the others
            out = torch.where((task == t)[:, None], self.at(place, x), out)
        return out

    def _place(self, task: int) -> int:
        known = [place for place, t in enumerate(self.tasks) if t == task]
        return known[-1] if known else len(self.maps) - 1

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """With the task of every row as ``forward``; else row by row the map whose answer has the least entropy."""
        if task is not None:
            return self(x, task)
        outs = self._all(x)
        return outs[_surest(outs), torch.arange(len(x), device=x.device)]

    def inferred(self, x: Tensor) -> Tensor:
        """The map that each row is answered by where nobody says its task, shape (n,)."""
        return _surest(self._all(x))

    def _all(self, x: Tensor) -> Tensor:
        return torch.stack([self.at(place, x) for place in range(len(self.maps))])

    def claimed(self) -> list[Tensor]:
        """What maps before the newest have chosen, one mask a weight."""
        earlier = [self.masks(place) for place in range(len(self.maps) - 1)]
        nothing = [torch.zeros_like(weight, dtype=torch.bool) for weight in self.net.parameters()]
        return [torch.stack(masks).any(0) for masks in zip(nothing, *earlier, strict=True)]

    def overlap(self) -> Tensor:
        """|b_i and b_j| / |b_i| of all pairs of maps, shape (maps, maps)."""
        flat = torch.stack([torch.cat([m.flatten() for m in self.masks(i)]) for i in range(len(self.maps))]).double()
        both: Tensor = flat @ flat.T
        return both / both.diagonal()[:, None]


def _surest(outs: Tensor) -> Tensor:
    """Of outputs (maps, n, C) the map of least entropy, shape (n,)."""
    return torch.special.entr(outs.softmax(2)).sum(2).argmin(0)


@surgery
def map_weights(nets: MutableMapping[str, nn.Module], *, takes_task: bool) -> None:
    """Put the model behind maps, of which there is none yet. Its weights are then called ``net.…``."""
    nets["model"] = Mapped(nets["model"], takes_task)


@surgery
def add_map(nets: MutableMapping[str, nn.Module], *, task: int) -> None:
    """Begin a map, soft until it is chosen: the forward is another one."""
    model = _mapped(nets["model"])
    model.maps.append(Map(model.net))
    model.tasks.append(task)
    model.soft = True


@surgery
def harden_map(nets: MutableMapping[str, nn.Module]) -> None:
    """The newest map is binary from now on: the forward is another one."""
    _mapped(nets["model"]).soft = False


def _mapped(model: nn.Module) -> Mapped:
    assert isinstance(model, Mapped)
    return model


class Unclaimed(Where):
    """Weights that no earlier map has chosen: all of them and the map itself while it is soft, then those in it.

    The map's R stands in the selection to the end, without a gradient, for there may be no weight left that is free.
    """

    def select(self, problem: Problem) -> Selection:
        model = _mapped(problem.model)
        free = [~mask for mask in model.claimed()]
        if not model.soft:
            free = [mask & chosen for mask, chosen in zip(free, model.masks(-1), strict=True)]
        names = [f"model.net.{name}" for name, _ in model.net.named_parameters()]
        return {**dict(zip(names, free, strict=True)), **dict.fromkeys(problem.weights("model.relevance.*"))}


class Extent(Term):
    """The sum of the values of the map that is learned."""

    def __call__(self, step: Step) -> Tensor:
        sizes = [w.sigmoid().sum() for name, w in step.weights.items() if name.startswith("model.relevance.")]
        return torch.stack(sizes).sum() * step.share


@edit
def open_map(problem: Problem, start: float) -> None:
    """A map for the new task: sigmoid(start) everywhere."""
    if not isinstance(problem.model, Mapped):
        _check(problem.model)
        problem.operate(map_weights, takes_task=_scenario(problem) == "task")
    model = _mapped(problem.model)
    _check(model.net)
    problem.operate(add_map, task=_task(problem))
    for relevance in model.relevance:
        relevance.fill_(start)


@edit
def choose(problem: Problem, p: float) -> None:
    """Keep the share ``p`` of weights with the largest |W m|: the map is binary from now on."""
    model = _mapped(problem.model)
    scores = {name: weight.abs() for name, weight in model.weights(len(model.maps) - 1).items()}
    for mask, chosen in zip(model.masks(-1), top(scores, p).values(), strict=True):
        mask.copy_(chosen)
    problem.operate(harden_map)


def _check(net: nn.Module) -> None:
    """Raise BadInput where a weight or a statistic would not be told apart by task."""
    for name, module in net.named_modules():
        own = any(True for _ in module.parameters(recurse=False))
        if (own and not isinstance(module, LAYERS)) or getattr(module, "track_running_stats", False):
            raise BadInput(
                f"rmn: {name or 'the model'} ({type(module).__name__}) cannot be mapped; use linear layers and "
                "convolutions without batch norm, with an output for every class"
            )


def _scenario(problem: Problem) -> str:
    scenario = problem.task.outputs.scenario if isinstance(problem.task, Incremental) else "domain"
    if scenario == "class":
        raise BadInput("rmn: a map answers within its task, and the scenario 'class' asks among all; use 'task' or "
                       "'domain'")  # fmt: skip
    return scenario


def _task(problem: Problem) -> int:
    """The task of this experience where it is known at test; else just the next number."""
    if _scenario(problem) != "task":
        return problem.turn
    assert isinstance(problem.task, Incremental)
    tasks = list(problem.task.outputs.came[-1])
    if len(tasks) != 1:
        raise BadInput(f"rmn: an experience of {len(tasks)} tasks has no one map; give one task an experience")
    return tasks[0]


@method(
    kind="continual",
    paper="Kaushik et al., Understanding Catastrophic Forgetting and Remembering in Continual Learning with Optimal "
    "Relevance Mapping, 2021",
    needs=("new",),
    tasks=("classification",),
    scenarios=("task", "domain"),
    structure=True,
    aliases=("relevance_mapping", "relevance_mapping_networks"),
    cost="a second set of weights while a task is learned; a bit a weight and task; without task ids a forward a task",
)
def rmn(
    p: Annotated[float, Field(gt=0, le=1)] = 0.3,
    mu: Annotated[float, Field(ge=0)] = 1e-6,
    start: Annotated[float, Field(gt=0)] = 3.0,
    lr: Annotated[float, Field(gt=0)] = 0.01,
    epochs: Annotated[float, Field(gt=0)] = 20,
    finetune: Annotated[float, Field(ge=0)] = 5,
    batch: Annotated[int, Field(gt=0)] = 10,
) -> Stage:
    """Learn weights together with a map of them; keep the map's largest part as binary, and hold what it chose.

    Equation: min CE(new; W m) + mu sum m with m = sigmoid(R), over R and the weights that no earlier map chose; then b
    = the share p of all weights with the largest |W m|, some epochs for the unclaimed weights in b under W b, and
    claimed <- claimed or b. What is claimed may be reused. R begins at ``start``; biases are mapped as weights are.
    Needs: to be told where experiences begin. In the scenario ``task`` every row's task chooses the map; in ``domain``
    the map whose answer has the least entropy serves, row by row. Linear layers and convolutions alone, without batch
    norm, and an output for every class. Answers under earlier maps keep their bits.
    Fails: entropy tells tasks apart but poorly, a network is sure of what it never saw (catastrophic remembering); with
    p too large nothing is left to learn with. The paper's test for new tasks without labels is left out.
    """
    where, loss = Unclaimed(), terms.fit("new")
    learn = Descent(loss + mu * Extent(), where, opt=adam(lr), over="new", epochs=epochs, batch=batch)
    refine = [Descent(loss, where, opt=adam(lr), over="new", epochs=finetune, batch=batch)] if finetune else []
    return Plan([open_map(start), learn, choose(p), *refine])
