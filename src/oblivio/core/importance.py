"""Per-example gradients, squared or absolute, from what one ordinary backward pass has: Fisher and its like, exactly.

A linear layer's sum over examples of squared weight gradients is (output gradients squared)^T (inputs squared), one
matrix product, and so with absolute values; convolutions use per-example products of unfolded inputs; whatever has no
rule here, or is called more than once in a forward, goes through ``torch.func.vmap`` in chunks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads
from oblivio.core.problem import Problem, moving
from oblivio.core.source import Batch
from oblivio.core.term import On
from oblivio.core.where import Where, as_where

Pair = dict[str, Tensor]
Power = Callable[[Tensor], Tensor]
Value: TypeAlias = "Callable[[Problem, Tensor, Batch], Tensor]"


def loss(problem: Problem, out: Tensor, batch: Batch) -> Tensor:
    """Each row's own training loss, with the data's labels: the value of the empirical Fisher."""
    return problem.task.each(out, batch)


def fisher(problem: Problem, on: On, where: Where | str = "model.*", size: int = 128) -> Grads:
    """Mean over the rows of ``on`` of the squared gradient of each row's own loss, with the data's labels.

    In evaluation mode; weights and batch-norm statistics are untouched. ``size``: rows a pass, without effect on the
    result beyond rounding. Returns one tensor a weight, of its shape.
    """
    return importance(problem, on, loss, where, size=size)


def importance(
    problem: Problem,
    on: On,
    value: Value,
    where: Where | str = "model.*",
    *,
    power: Power = torch.square,
    size: int = 128,
    extra: Mapping[str, Tensor] | None = None,
) -> Grads:
    """Mean over the rows of ``on`` of ``power`` of the gradient of ``value``, one tensor a weight, of its shape.

    In evaluation mode; weights and batch-norm statistics are untouched.

    Args:
        problem: at its present weights.
        on: the rows.
        value: ``value(problem, out, batch)`` of shape (n,), or (n, k): then summed over the k columns, each of which
            costs a backward pass but no forward. A row of it must depend on that row of ``out`` alone.
        where: which weights.
        power: ``torch.square`` or ``torch.abs``, or another with power(a b) = power(a) power(b).
        size: rows a pass, without effect on the result beyond rounding.
        extra: columns that ``value`` reads beside those of the source, one entry a row.
    """
    what = "" if value is loss else f" by {value!r} and {power!r}"
    ask = _Ask(problem, value, power, extra or {})
    return dict(problem.once(f"importance of {where!r}{what}", on, lambda: ask.over(on, where, size)))


@dataclass(frozen=True)
class _Ask:
    """What is differentiated, and what is done to the gradient of each row."""

    problem: Problem
    value: Value
    power: Power
    extra: Mapping[str, Tensor]

    def over(self, on: On, where: Where | str, size: int) -> Grads:
        problem, source = self.problem, self.problem.source(on)
        if problem.team.sharded:
            raise BadInput("gradients of single rows need whole weights; leave out sharding='full'")
        chosen = as_where(where).select(problem)
        weights = {n: w for n, w in problem.weights().items() if n in chosen}
        with torch.enable_grad(), problem.evaluating(), moving(problem.nets, ()):
            ruled = _ruled(problem, next(source.batches(1)), weights)
            told = {f"{n}.{p}" for n, module in ruled.items() for p, _ in module.named_parameters()}
            rest = [n for n in weights if n not in told]
            total = {n: torch.zeros_like(w) for n, w in weights.items()}
            for batch in source.batches(size):
                problem.count(source.name, len(batch))
                batch = batch.but(**{n: v[batch.rows] for n, v in self.extra.items()})
                self._through_rules(batch, ruled, total)
                if rest:
                    self._through_vmap(batch, rest, total)
        return {n: v / len(source) for n, v in total.items()}

    def columns(self, out: Tensor, batch: Batch) -> Tensor:
        """The value as (n, k)."""
        value = self.value(self.problem, out, batch)
        return value[:, None] if value.dim() == 1 else value

    def _through_rules(self, batch: Batch, ruled: dict[str, nn.Module], total: Grads) -> None:
        """One forward and a backward a column; what a layer adds is known when its output gradient arrives."""
        anchor = torch.zeros((), device=self.problem.team.device, requires_grad=True)
        flat: dict[str, tuple[Tensor, Tensor]] = {}

        def arrived(name: str, module: nn.Module, x: Tensor, g: Tensor) -> None:
            if isinstance(module, nn.Linear) and x.dim() == 2:  # one product with the inputs serves all columns
                seen = self.power(g)
                flat[name] = (x, seen + flat[name][1] if name in flat else seen)
            else:
                _add(total, name, module, RULES[type(module)](module, x, g, self.power))

        def listen(name: str, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            if not out.requires_grad:  # the first layer: weights are frozen, so something else must start the graph
                out = out + anchor
            x = inputs[0].detach()
            out.register_hook(lambda g: arrived(name, module, x, g.detach()))
            return out

        handles = [m.register_forward_hook(partial(listen, n)) for n, m in ruled.items()]
        try:
            out = self.problem.task.forward(self.problem.nets, "model", batch)
            if out.requires_grad:
                self._backward(out, batch, anchor)
        finally:
            for handle in handles:
                handle.remove()
        for name, (x, g) in flat.items():
            _add(total, name, ruled[name], {"weight": g.T @ self.power(x), "bias": g.sum(0)})

    def _backward(self, out: Tensor, batch: Batch, anchor: Tensor) -> None:
        leaf = out.detach().requires_grad_()
        sums = self.columns(leaf, batch).sum(0)
        for j in range(len(sums)):
            (g,) = torch.autograd.grad(sums[j], leaf, retain_graph=True)
            if len(sums) == 1 or bool(g.any()):  # outputs that do not count have columns without a gradient
                self.problem.spend("backward", len(batch))
                out.backward(g, inputs=[anchor], retain_graph=j < len(sums) - 1)

    def _through_vmap(self, batch: Batch, names: list[str], total: Grads) -> None:
        problem, task = self.problem, self.problem.task
        named = {n: w.detach() for n, w in problem.nets.named_parameters()}
        fixed = {n: w for n, w in named.items() if n not in names}
        given = {c: batch[c] for c in (*batch.source.columns, *self.extra) if isinstance(batch[c], Tensor)}

        def column(weights: Grads, row: dict[str, Tensor], j: int) -> Tensor:
            one = Batch(batch.source, batch.rows[:1], {c: v[None] for c, v in row.items()})
            out = functional_call(problem.nets, {**fixed, **weights}, (lambda nets: task.forward(nets, "model", one),))
            return self.columns(out, one)[0, j]

        with torch.no_grad():
            one = batch.piece(0, len(batch))
            width = self.columns(task.forward(problem.nets, "model", one), one).shape[1]
        for j in range(width):
            slopes = vmap(grad(column), (None, 0, None), chunk_size=32)({n: named[n] for n in names}, given, j)
            for name, value in slopes.items():
                total[name] += self.power(value).sum(0)


def _ruled(problem: Problem, batch: Batch, weights: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Modules with a rule that are called once in a forward and share no weight."""
    calls: Counter[str] = Counter()
    owners = Counter(id(p) for m in problem.nets.modules() for p in m.parameters(recurse=False))
    modules = {n: m for n, m in problem.nets.named_modules() if type(m) in RULES and _supported(m)}
    handles = [m.register_forward_hook(lambda *_, n=n: calls.update([n])) for n, m in modules.items()]
    with torch.no_grad():
        problem.task.forward(problem.nets, "model", batch)
    for handle in handles:
        handle.remove()
    alone = {n for n, m in modules.items() if all(owners[id(p)] == 1 for p in m.parameters(recurse=False))}
    return {n: m for n, m in modules.items() if calls[n] == 1 and n in alone and f"{n}.weight" in weights}


def _supported(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return module.weight is not None and getattr(module, "track_running_stats", True)


def _add(total: Grads, name: str, module: nn.Module, found: Pair) -> None:
    by_parameter = BLOCKS[type(module)](module, found) if type(module) in BLOCKS else found
    for key, value in by_parameter.items():
        if f"{name}.{key}" in total:
            total[f"{name}.{key}"] += value


def _linear(module: nn.Linear, x: Tensor, g: Tensor, power: Power) -> Pair:
    x, g = x.flatten(1, -2), g.flatten(1, -2)
    return {"weight": power(g.mT @ x).sum(0), "bias": power(g.sum(1)).sum(0)}


def _conv(module: nn.Conv2d, x: Tensor, g: Tensor, power: Power) -> Pair:
    patches = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)  # type: ignore[arg-type]
    each = g.flatten(2) @ patches.mT
    return {"weight": power(each).sum(0).view_as(module.weight), "bias": power(g.flatten(2).sum(2)).sum(0)}


def _layer_norm(module: nn.LayerNorm, x: Tensor, g: Tensor, power: Power) -> Pair:
    hat = F.layer_norm(x, module.normalized_shape, eps=module.eps)
    return _scaled(hat, g, tuple(range(1, x.dim() - module.weight.dim())), power)


def _batch_norm(module: Any, x: Tensor, g: Tensor, power: Power) -> Pair:
    hat = F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)
    return _scaled(hat, g, tuple(range(2, x.dim())), power)


def _scaled(hat: Tensor, g: Tensor, over: tuple[int, ...], power: Power) -> Pair:
    each, shift = (hat * g, g) if not over else ((hat * g).sum(over), g.sum(over))
    return {"weight": power(each).sum(0), "bias": power(shift).sum(0)}


RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor, Power], Pair]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}
BLOCKS: dict[type[nn.Module], Callable[[Any, Pair], Pair]] = {}  # for layers whose weight lies in several parameters
