"""CLNP: train sparsely, keep the few units a task needs as they are, and begin anew with all the others."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads
from oblivio.core.opt import adam
from oblivio.core.plan import Plan, Stage, edit
from oblivio.core.problem import Nets, Problem, rng
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, Term
from oblivio.core.where import Selection, Where
from oblivio.modules.activity import columns, mean_answers
from oblivio.modules.chain import Link, links
from oblivio.modules.growing import GrownLinear
from oblivio.modules.heads import linear_layer
from oblivio.registry import method
from oblivio.tasks.incremental import Incremental

FRACTIONS = [i / 50 for i in range(50, 0, -1)] + [0.01, 3e-3, 1e-3, 3e-4, 1e-4, 0.0]  # of a layer's greatest activity


class Territory(Where):
    """What is still free: the weights into units that no task has claimed, and the head of the present task.

    ``state``: ``used`` has a mask of claimed units by layer, ``answered`` one of outputs that were learned, ``report``
    by turn and layer the counts ``free`` (units left) and ``reused`` (claimed before, and active for this task).
    """

    def prepare(self, problem: Problem) -> None:
        chain = relu_chain(problem)
        head = linear_layer(problem.model, chain[-1].next)
        device = problem.team.device
        if "used" not in self.state:
            used = {k.layer: torch.zeros(k.units, dtype=torch.bool, device=device) for k in chain}
            answered = torch.zeros(head.out_features, dtype=torch.bool, device=device)
            self.state.update(used=used, answered=answered, report={})
        if isinstance(head, GrownLinear):
            raise BadInput("clnp: the head had to grow, which changes last bits; build the model with an output for "
                           "every class of the stream")  # fmt: skip
        if self.state["answered"][current(problem)].any():
            raise BadInput("clnp: the experience has classes that were learned before, whose outputs are held as they "
                           "are; give every class in one experience")  # fmt: skip

    def select(self, problem: Problem) -> Selection:
        chain, weights = relu_chain(problem), problem.weights()
        rows = {link.layer: ~self.state["used"][link.layer] for link in chain}
        now = torch.zeros_like(self.state["answered"])
        now[current(problem)] = True
        named = {f"model.{layer}.{kind}": mask for layer, mask in {**rows, chain[-1].next: now}.items()
                 for kind in ("weight", "bias")}  # fmt: skip
        return {n: _rows(mask, weights[n]).expand_as(weights[n]).float() for n, mask in named.items() if n in weights}


class Sparsity(Term):
    """The sum of |w| over the entries of matrices and kernels that may move."""

    def __call__(self, step: Step) -> Tensor:
        free = [(w, step.selection[n]) for n, w in step.weights.items() if w.dim() > 1]
        sizes = [(w if mask is None else w * mask).abs().sum() for w, mask in free]
        return torch.stack(sizes).sum() * step.share


def relu_chain(problem: Problem) -> list[Link]:
    """The hidden layers. Raises BadInput for a batch norm, whose statistics move, or units that are not ReLU."""
    chain = links(problem.model)
    for link in chain:
        if link.norms:
            raise BadInput(f"clnp: the statistics of {link.norms[0]} change with every task, old outputs with them; "
                           "use a model without batch norm")  # fmt: skip
        kinds = [problem.model.get_submodule(name) for name in link.activations]
        if len(kinds) != 1 or not isinstance(kinds[0], nn.ReLU):
            raise BadInput(f"clnp: a silent unit is one whose ReLU gives 0; behind {link.layer} there must be one ReLU")
    return chain


def current(problem: Problem) -> Tensor:
    """The outputs of the present task. Raises BadInput outside the scenario ``task``."""
    if not isinstance(problem.task, Incremental) or problem.task.outputs.scenario != "task":
        raise BadInput("clnp: every task has outputs of its own, and says at test which it is; use a stream of the "
                       "scenario 'task'")  # fmt: skip
    found = problem.task.outputs.columns("current")
    assert found is not None
    return found


@edit
def claim(problem: Problem, territory: Territory, margin: float) -> None:
    """Keep the units that are active on the task, cut them off from all that may still change, draw the others anew.

    A unit is active if its mean activity is at least a fraction of the layer's greatest: the largest of ``FRACTIONS``
    whose network, measured as it will be, loses at most ``margin`` of accuracy on ``valid`` (or ``new``).
    """
    chain, used = relu_chain(problem), territory.state["used"]
    valid = "valid" if "valid" in problem.sources else "new"
    means = mean_answers(problem, "new", chain)
    least = accuracy(problem, valid, {}) - margin - 1e-9
    for fraction in FRACTIONS:
        active = {layer: mean >= fraction * mean.max() for layer, mean in means.items()}
        values = cut(problem, chain, active, used)
        if accuracy(problem, valid, values) >= least:
            break
    weights = problem.weights()
    for name, value in values.items():
        weights[name].copy_(value)
    reused = {layer: int((active[layer] & mask).sum()) for layer, mask in used.items()}
    for layer, mask in used.items():
        mask |= active[layer]
    territory.state["answered"][current(problem)] = True
    territory.state["report"][str(problem.turn)] = {
        layer: {"free": int((~mask).sum()), "reused": reused[layer]} for layer, mask in used.items()
    }
    begin_anew(problem, {layer: ~mask for layer, mask in used.items()})


def cut(problem: Problem, chain: list[Link], active: Grads, used: Grads) -> Grads:
    """The weights in which newly active units read kept units alone, and the present head active ones alone."""
    weights, values = problem.weights(), {}
    for i, link in enumerate(chain):
        weight = weights[f"model.{link.next}.weight"].detach()
        if i + 1 < len(chain):
            into = active[link.next] & ~used[link.next]
            out = ~(active[link.layer] | used[link.layer])
        else:
            into = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
            into[current(problem)] = True
            out = ~active[link.layer]
        gone = into[:, None] & columns(out, weight.shape[1])[None]
        values[f"model.{link.next}.weight"] = weight.masked_fill(_rows(gone, weight), 0)
    return values


def accuracy(problem: Problem, on: On, values: Grads) -> float:
    """The mean of the task's figure over a source with these weights in place of the present ones."""

    def each(nets: Nets, batch: Batch) -> Tensor:
        out = functional_call(nets, values, (lambda inner: problem.task.forward(inner, "model", batch),))
        return problem.task.quality(problem.task.view(out, batch, "served"), batch)

    return float(problem.tabulate(on, each).double().mean())


def begin_anew(problem: Problem, units: Grads) -> None:
    """Draw the weights into these units as torch initialises a layer."""
    weights = problem.weights()
    for layer, mask in units.items():
        bound = weights[f"model.{layer}.weight"][0].numel() ** -0.5
        for kind in ("weight", "bias"):
            if (weight := weights.get(f"model.{layer}.{kind}")) is not None:
                drawn = torch.rand(weight.shape, generator=rng(problem, "clnp", layer, kind), device=weight.device)
                weight.copy_(torch.where(_rows(mask, weight), (2 * drawn - 1) * bound, weight))


def _rows(mask: Tensor, weight: Tensor) -> Tensor:
    """A mask with ones behind it, so that it spreads over the weight."""
    return mask.view(*mask.shape, *[1] * (weight.dim() - mask.dim()))


@method(
    kind="continual",
    paper="Golkar, Kagan and Cho, Continual Learning via Neural Pruning, 2019",
    needs=("new",),
    tasks=("classification",),
    scenarios=("task",),
    structure=True,
    aliases=("continual_learning_via_neural_pruning",),
    cost="one pass over the new rows and up to 56 over the validation rows an experience; a bit a unit; no stored rows",
)
def clnp(
    l1: Annotated[float, Field(ge=0)] = 1e-3,
    margin: Annotated[float, Field(ge=0, le=1)] = 0.02,
    lr: Annotated[float, Field(gt=0)] = 5e-3,
    epochs: Annotated[float, Field(gt=0)] = 30,
    batch: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Learn with an l1 penalty, claim the units that are active, and never change what they read again.

    Equation: min CE(new) + l1 sum |w| over weights into free units and the present head; then unit i of a layer is
    active if mean ReLU_i >= theta max_j mean ReLU_j, with the largest theta that costs at most ``margin`` of validation
    accuracy; weights from unclaimed into active units become 0, claimed <- claimed or active, others are drawn anew.
    Needs: the scenario ``task``, a chain of linear layers and convolutions with ReLU (``modules.chain``), without batch
    norm, and a head with an output for every class; ``valid`` rows, for which the new ones stand in, too kindly.
    Outputs of earlier tasks keep their bits.
    Fails: when no unit is free, a task learns its head alone, on what earlier tasks left; with margin 0 that is soon.
    The paper's fine-tuning after the cut is left out.
    """
    free = Territory()
    loss = terms.fit("new") + l1 * Sparsity()
    learn = Descent(loss, free, opt=adam(lr), over="new", epochs=epochs, batch=batch)
    return Plan([learn, claim(free, margin)])
