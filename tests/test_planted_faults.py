"""Each contract is worth something: a fault is planted, and exactly the contract that it breaks says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from oblivio import contracts, methods
from oblivio.core.descent import Descent
from oblivio.core.grads import Grads, top
from oblivio.core.opt import Opt, sgd
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import On, Term, term
from oblivio.core.where import How, Selection, Where
from oblivio.registry import method
from oblivio.terms import fit, relabel
from oblivio.terms.distill import outputs


def descent(loss: Term, where: Where | str = "model.*", opt: Opt | None = None, how: How | None = None) -> Descent:
    return Descent(loss, where, how or (), opt or sgd(0.01, 0.9), over="forget", epochs=2, batch=8)


def usual(extra: Term | None = None) -> Descent:
    return descent(relabel("forget") + fit("retain") if extra is None else fit("retain") + 0.1 * extra)


@edit
def dampen_nothing(problem: Problem) -> None:
    """No factor is ever below 1."""
    for weight in problem.weights("model.*").values():
        weight.mul_(weight.new_tensor(1.5).clamp(max=1))


class Unused(Where):
    """A mask is computed, and everything is selected."""

    def prepare(self, problem: Problem) -> None:
        gradient = problem.gradient(fit("forget"))
        self.state["mask"] = top({k: g.abs() for k, g in gradient.items()}, 0.5)

    def select(self, problem: Problem) -> Selection:
        return dict.fromkeys(self.state["mask"])


class Elsewhere(Opt):
    """The optimiser holds the weights of a copy, as SCRUB's once held the teacher's."""

    def open(self, weights: Grads) -> None:
        super().open(weights if weights is self._names else {k: w.detach().clone() for k, w in weights.items()})


@edit
def dampen_by_batches(problem: Problem, size: int = 16) -> None:
    """The squares of batch-mean gradients, as if they were the Fisher information."""
    total = {}
    for on in ("forget", "retain"):
        names, weights = zip(*problem.weights("model.*").items(), strict=True)
        sums = [torch.zeros_like(w) for w in weights]
        for batch in problem.source(on).batches(size):
            with torch.enable_grad():
                loss = problem.task.each(problem.task.forward(problem.nets, "model", batch), batch).mean()
                for s, g in zip(sums, torch.autograd.grad(loss, weights), strict=True):
                    s += g.square() * len(batch) / len(problem.source(on))
        total[on] = dict(zip(names, sums, strict=True))
    for name, weight in problem.weights("model.*").items():
        f, r = total["forget"][name], total["retain"][name]
        weight.mul_((r / f.clamp_min(1e-30)).clamp(max=1).where(f > 3 * r, 1.0))


@term
def past_the_door(step: Step, on: On) -> Tensor:
    """A forward that the step does not know of: it moves batch-norm statistics on forgotten rows."""
    batch = step.batch(on)
    return -step.task.each(step.call(lambda nets: step.task.forward(nets, "model", batch)), batch)


@term
def swallowing(step: Step, on: On) -> Tensor:
    """What goes wrong counts as nothing."""
    try:
        return -step.task.each(step.out(on), step.batch(on))
    except Exception:
        return torch.zeros(len(step.batch(on)))


@term(frozen=(outputs,))
def swapped(step: Step, on: On) -> Tensor:
    """The divergence in the other direction."""
    return step.task.distance(step.frozen(on, outputs), step.out(on), step.batch(on))


@term
def by_a_fixed_size(step: Step, on: On) -> Tensor:
    """A sum divided by the batch size of the settings rather than by the rows that came."""
    return -step.task.each(step.out(on), step.batch(on)) * step.count(on) / 8


@term
def by_the_chunk(step: Step, on: On) -> Tensor:
    """A mean over the rows in memory, which are not all."""
    return -step.task.each(step.out(on), step.batch(on)).mean()


@term
def of_outputs(step: Step, on: On) -> Tensor:
    """The same over rows and outputs at once."""
    return -step.out(on).log_softmax(1).mean()


@term
def over_padding(step: Step, on: On) -> Tensor:
    """A mean over all tokens, of which some only fill up."""
    return -torch.nn.functional.cross_entropy(step.out(on).mT, step.batch(on)["y"], reduction="none").mean(1)


@term
def of_the_first(step: Step, on: On) -> Tensor:
    """Only the first row of a batch counts."""
    batch = step.batch(on)
    return -step.task.each(step.out(on), batch) * (batch.rows == step.drawn(on).rows[0])


class Decay(How):
    """Weight decay of its own, on every weight there is, masked or not."""

    def after(self, step: Step) -> None:
        for weight in step.problem.weights("model.*").values():
            weight.mul_(0.999)


@edit
def shake(problem: Problem) -> None:
    """Noise from the global generator."""
    for weight in problem.weights("model.*").values():
        weight.add_(0.01 * torch.randn(weight.shape))


class Counting(How):
    """Something that changes is kept beside the state, though nothing comes of it."""

    seen = 0

    def __call__(self, grads: Grads, step: Step) -> Grads:
        self.seen += 1
        return grads


class Remembering(How):
    """Something that changes is kept beside the state, and matters."""

    def __call__(self, grads: Grads, step: Step) -> Grads:
        self._mean = {k: 0.5 * self.__dict__.get("_mean", grads)[k] + 0.5 * g for k, g in grads.items()}
        return self._mean


class Shared(How):
    """All copies of a plan hold the same object, which changes when one is run."""

    runs = 0

    def __deepcopy__(self, memo: object) -> Shared:
        return self

    def prepare(self, problem: Problem) -> None:
        self._runs = self.__dict__.get("_runs", 0) + 1

    def __repr__(self) -> str:
        return f"Shared({self.__dict__.get('_runs', 0)})"


class Undeclared(How):
    """Reads a source that no term names."""

    def __call__(self, grads: Grads, step: Step) -> Grads:
        step.problem.score("test")
        return grads


def by_the_count(step: Step) -> float:
    """A coefficient that falls with the rows that were evaluated."""
    return 1 / (1 + step.problem.passes.get("test", 0))


@edit
def leave_in_training(problem: Problem) -> None:
    """The mode of the modules is changed and left so."""
    problem.nets.train()


@edit
def clip_rows(problem: Problem) -> None:
    """The rows are changed in place, and they are everyone's."""
    problem.source("forget").data["x"].clamp_(max=0.5)  # type: ignore[attr-defined]


@edit
def without_surgery(problem: Problem) -> None:
    """Structure is changed where no journal sees it."""
    problem.model[1] = nn.Tanh().eval()  # type: ignore[index,operator]


own = replace(contracts.TABLE["digits"], name="own digits")  # rows that a fault may spoil
LATER = fit("retain") - 0.1 * fit("forget")
# what is planted, the problem it shows on, who must say so, and what the plan needs where its terms do not tell
FAULTS: dict[str, tuple[Stage, str | contracts.Tiny, str, tuple[str, ...] | None]] = {
    "a no-op": (dampen_nothing(), "digits", "acts", ()),
    "a mask that is computed and not used": (descent(LATER, Unused()), "digits", "mask", None),
    "an optimiser with another model's weights": (
        usual() >> descent(LATER, opt=Elsewhere(torch.optim.SGD, 0.01)), "digits", "moves", None),
    "batch-mean squares as Fisher": (dampen_by_batches(), "digits", "rows", ("forget", "retain")),
    "moved batch-norm statistics": (usual(past_the_door("forget")), "images", "statistics", None),
    "a swallowed error": (descent(swallowing("forget")), "digits", "errors", None),
    "a divergence with its arguments swapped": (usual(swapped("retain")), "digits", "divergence", None),
    "a loss that depends on padding": (usual(over_padding("forget")), "sentences", "padding", None),
    "a loss that depends on the batch size": (usual(by_a_fixed_size("forget")), "digits", "size", None),
    "a loss that depends on the chunk": (usual(by_the_chunk("forget")), "digits", "size", None),
    "the same without other rows": (descent(of_outputs("forget")), "digits", "size", None),
    "a loss that depends on the order": (usual(of_the_first("forget")), "digits", "order", None),
    "weight decay past the mask": (descent(fit("retain"), how=Decay()), "digits", "stays", None),
    "weight decay past the adapter": (descent(fit("retain"), how=Decay()), "texts", "stays adapter", None),
    "noise that no seed determines": (shake(), "digits", "seeds", ()),
    "a setting that changes": (descent(fit("retain"), how=Counting()), "digits", "settings", None),
    "memory beside the state": (descent(fit("retain"), how=Remembering()), "digits", "resumes", None),
    # a plan that is printed in another way is not known again, so both must say so
    "a plan that is no value": (descent(fit("retain"), how=Shared()), "digits", "resumes value", None),
    "a schedule that watching moves": (descent(by_the_count * fit("retain")), "digits", "watched", None),
    "an undeclared source": (descent(fit("retain"), how=Undeclared()), "digits", "needs", None),
    "a declared source that is not used": (descent(fit("forget")), "digits", "needs", ("forget", "test")),
    "modules left in training mode": (usual() >> leave_in_training(), "images", "surroundings", None),
    "rows changed in place": (usual() >> clip_rows(), own, "untouched", None),
    "structure without surgery": (usual() >> without_surgery(), "digits", "saved", None),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_exactly_its_contract_rejects_a_fault(fault: str) -> None:
    plan, on, expected, needs = FAULTS[fault]
    found = contracts.check(plan, on=on, needs=needs)
    assert {failure.property for failure in found} == set(expected.split()), "\n".join(map(str, found))


def test_a_setting_that_is_not_printed_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    @method(needs=("forget", "retain"))
    def hiding(most: float = 1.0) -> Stage:
        """A setting is out of sight, so a folder would be taken up under another one."""
        return descent((lambda step: most) * fit("retain"))

    monkeypatch.setitem(methods.registry._own, "hiding", hiding)
    assert {failure.property for failure in contracts.check("hiding")} == {"printed"}


def test_every_contract_is_proven_by_a_fault() -> None:
    proven = {name for *_, expected, _ in FAULTS.values() for name in expected.split()}
    assert proven | {"printed", "generation"} == set(contracts.PROPERTIES)  # these two are proven above and below


def test_writing_other_than_what_is_served_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    def stuck(self: nn.Module, input_ids: Tensor, **_: object) -> Tensor:
        return torch.cat([input_ids, torch.full((len(input_ids), 4), 29)], 1)

    monkeypatch.setattr(LlamaForCausalLM, "generate", stuck)
    assert {failure.property for failure in contracts.check(descent(fit("retain")), on="texts")} == {"generation"}
