"""The experts of a sparse model that rows are routed to: attribution by router scores, and their weights as a Where."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.problem import Nets, Problem
from oblivio.core.source import Batch
from oblivio.core.term import On, source_name
from oblivio.core.where import Selection, Where
from oblivio.networks.language import routers
from oblivio.tasks.language import ahead, mean

Routing: TypeAlias = dict[str, Tensor]  # by router, shape (experts,)
Targets: TypeAlias = dict[str, list[int]]  # by router, which of its experts
By: TypeAlias = Literal["forget", "contrast"]


def router_modules(problem: Problem) -> list[str]:
    """Full names of the routers of the model, ``model.….gate``, in order. Raises BadInput for a dense model."""
    return [f"model.{name.removesuffix('.weight')}" for name in routers(problem.model)]


def scores(out: Any, rows: int) -> Tensor:
    """Softmax scores (rows, places, experts) of what a router gave: its logits, or a tuple that begins with them."""
    logits: Tensor = out[0] if isinstance(out, tuple) else out
    return logits.float().softmax(-1).reshape(rows, -1, logits.shape[-1])


@contextlib.contextmanager
def listening(problem: Problem) -> Iterator[dict[str, Tensor]]:
    """While it is open, the dict holds what each router gave in the last forward, as it was."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, out: Any) -> None:
            found[name] = out[0] if isinstance(out, tuple) else out

        return hook

    names = router_modules(problem)
    handles = [problem.nets.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def attribution(problem: Problem, on: On) -> Routing:
    """The mean score of every expert over a source, shape (experts,) by router; one pass, in evaluation mode.

    A row's score is the mean over the places from which its tokens that count are predicted, and rows weigh the same
    (the gate score of expert-specialised fine-tuning).
    """
    names = router_modules(problem)

    def each(nets: Nets, batch: Batch) -> Tensor:
        problem.task.forward(nets, "model", batch)
        counts = ahead(batch["y"])[1][..., None]
        return torch.stack([mean(scores(found[name], len(batch))[:, :-1], counts) for name in names], 1)

    with torch.no_grad(), listening(problem) as found:
        means = problem.tabulate(on, each).double().mean(0).float()
    return dict(zip(names, means, strict=True))


def contrast(one: Routing, other: Routing) -> float:
    """The largest difference between the scores of an expert, over all of them: 0 where all is routed alike."""
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def highest(routing: Routing, count: int) -> Targets:
    """The experts with the highest scores over all routers. Raises BadInput where there are not so many."""
    ranked = sorted(((-float(s), name, e) for name, each in routing.items() for e, s in enumerate(each)))
    if count > len(ranked):
        raise BadInput(f"{count} experts are asked for, and the model has {len(ranked)} in all")
    chosen: Targets = {}
    for _, name, expert in ranked[:count]:
        chosen.setdefault(name, []).append(expert)
    return chosen


class experts(Where):
    """The ``count`` experts that ``on`` is routed to most, and their routers; chosen when the stage opens.

    All experts of a layer lie in tensors with a first dimension of experts, as in Transformers 5, of which this is a
    mask; so an optimiser holds its state for all experts of the layers.

    Args:
        on: whose experts: the forgotten rows.
        against: rows that should be routed otherwise.
        count: how many, over all layers together.
        by: rank experts by their scores on ``on`` (``forget``, as UOE does), or by how much higher these are than those
            on ``against`` (``contrast``).
        least: the contrast there must be: the largest difference between the scores of an expert on the two sources.

    Raises BadInput for a dense model, and where the contrast is lower: attribution then says nothing.
    """

    def __init__(self, on: On, against: On, count: int = 1, by: By = "forget", least: float = 0.2) -> None:
        if count < 1:
            raise BadInput(f"experts(count={count}): choose 1 or more")
        self.on, self.against, self.count, self.by, self.least = on, against, count, by, least

    def prepare(self, problem: Problem) -> None:
        mine, others = attribution(problem, self.on), attribution(problem, self.against)
        if (apart := contrast(mine, others)) < self.least:
            names = source_name(self.on), source_name(self.against)
            raise BadInput(
                f"not applicable: {names[0]} and {names[1]} are routed alike (the scores of no expert differ by more "
                f"than {apart:.3f}, {self.least:g} is needed), so no expert holds what is to be forgotten; move other "
                "weights, or lower the contrast that is asked for"
            )
        rank = mine if self.by == "forget" else {name: each - others[name] for name, each in mine.items()}
        self.state["targets"] = highest(rank, self.count)

    @property
    def targets(self) -> Targets:
        """The chosen experts by router; none before they are chosen."""
        found: Targets = self.state.get("targets", {})
        return found

    def select(self, problem: Problem) -> Selection:
        chosen: Selection = {}
        for router, targets in self.targets.items():
            chosen[f"{router}.weight"] = None
            for name, weight in _expert_weights(problem, router).items():
                mask = torch.zeros_like(weight, dtype=torch.bool)
                mask[targets] = True
                chosen[name] = mask
        return chosen

    def __repr__(self) -> str:
        names = source_name(self.on), source_name(self.against)
        return f"experts({names[0]!r}, {names[1]!r}, count={self.count}, by={self.by!r}, least={self.least:g})"


def _expert_weights(problem: Problem, router: str) -> dict[str, nn.Parameter]:
    block, size = router.rpartition(".")[0], len(problem.weights(f"{router}.weight")[f"{router}.weight"])
    found = {n: w for n, w in problem.weights(f"{block}.*").items() if n.startswith(f"{block}.experts.")}
    if not found or any(len(w) != size for w in found.values()):
        raise BadInput(f"{block}: the weights of its {size} experts do not lie together in tensors, one an entry of "
                       "the first dimension; open the model with Transformers 5")  # fmt: skip
    return found
