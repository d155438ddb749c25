"""Every continual method has every property of a stream, and each property rejects the fault it is there for."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from oblivio import contracts, methods, terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.surgery import Wrap, surgery
from oblivio.core.term import Term
from oblivio.core.where import How
from oblivio.sources import Buffer
from oblivio.tasks.incremental import Outputs

CONTINUAL = [name for name in methods.names if methods.spec(name).kind == "continual"]
CASES = [pytest.param(name, s, id=f"{name}-{s}") for name in CONTINUAL for s in methods.spec(name).scenarios]


@pytest.mark.parametrize(("method", "scenario"), CASES)
def test_a_continual_method_has_every_property_of_a_stream(method: str, scenario: str) -> None:
    assert contracts.check_stream(method, scenario) == []


# --- a fault for each


def descent(loss: Term | None = None, **more: Any) -> Stage:
    new = terms.fit("new")
    return Descent(new if loss is None else new + loss, over="new", epochs=1, batch=8, opt=sgd(0.05), **more)


class Hidden(How):
    """Counts its steps where no state is."""

    def __init__(self) -> None:
        self._steps = 0

    def __call__(self, grads: Any, step: Step) -> Any:
        self._steps += 1
        return {name: g * self._steps for name, g in grads.items()}


class Shared(How):
    """Counts its steps for all learners together."""

    count: ClassVar[dict[str, Any]] = {"steps": 0}

    def after(self, step: Step) -> None:
        self.count["steps"] += 1

    def save(self) -> dict[str, Any]:
        return dict(self.count)


class Random(How):
    """Draws where nothing seeds."""

    def prepare(self, problem: Problem) -> None:
        self.state["scale"] = float(torch.rand(()))

    def __call__(self, grads: Any, step: Step) -> Any:
        return {name: g * self.state["scale"] for name, g in grads.items()}


class Centred(Wrap):
    """Takes the mean of the batch off."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x) - self.net(x).mean(0)


@surgery
def centre(nets: MutableMapping[str, nn.Module]) -> None:
    """Wrap the model, once."""
    if not isinstance(nets["model"], Centred):
        nets["model"] = Centred(nets["model"])


@edit
def centred(problem: Problem) -> None:
    problem.operate(centre)


class Overfull(Buffer):
    """Says it holds fewer rows than it does."""

    def after(self, step: Step) -> None:
        super().after(step)
        self.capacity = 3


class Keeping(How):
    """Keeps all rows, and lets nobody have them back."""

    def after(self, step: Step) -> None:
        x = step.drawn("new")["x"]
        self.state["x"] = torch.cat([self.state["x"], x]) if "x" in self.state else x.clone()


class Passing(How):
    """Passes all rows in training mode when an experience ends."""

    def consolidate(self, problem: Problem) -> None:
        problem.model.train()
        with torch.no_grad():
            for batch in problem.source("new").batches(8):
                problem.model(batch["x"])


def as_long_as_its_memory(buffer: int = 8) -> Stage:
    stored = Buffer(buffer)
    loss = terms.fit("new") + terms.fit(stored)
    return Descent(loss, over="new", steps=lambda visit: buffer, batch=8, opt=sgd(0.05))


def overfull() -> Stage:
    return descent(terms.fit(Overfull(20)))


FAULTS: dict[str, tuple[Callable[..., Stage], str]] = {
    "goes_on": (lambda: descent(how=Hidden()), "class"),
    "unhurt": (lambda: descent(how=Shared()), "class"),
    "reproducible": (lambda: descent(how=Random()), "task"),
    "by_itself": (lambda: centred() >> descent(), "class"),
    "holds": (overfull, "domain"),
    "as_long": (as_long_as_its_memory, "class"),
    "still": (lambda: descent(how=Passing()), "domain"),
    "forgets": (lambda: descent(how=Keeping()), "class"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_rejected_by_its_property(fault: str) -> None:
    make, scenario = FAULTS[fault]
    assert contracts.check_stream(make, scenario, only=fault) != []


def test_answers_of_classes_that_do_not_count_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outputs, "view", lambda self, out, batch, which: out)
    assert contracts.check_stream("naive", "class", only="counted") != []
    assert contracts.check_stream("naive", "task", only="counted") != []


def test_every_property_has_a_fault() -> None:
    assert {*FAULTS, "counted"} == set(contracts.STREAM_PROPERTIES)


def test_a_plain_descent_has_every_property() -> None:
    assert contracts.check_stream(descent, "domain") == []
