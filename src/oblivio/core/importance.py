"""Per-example squared gradients from what one ordinary backward pass has: the exact diagonal of the empirical Fisher.

A linear layer's sum over examples of squared weight gradients is (output gradients squared)^T (inputs squared), one
matrix product; convolutions use per-example products of unfolded inputs; whatever has no rule here, or is called more
than once in a forward, goes through ``torch.func.vmap`` in chunks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from oblivio.core.grads import Grads
from oblivio.core.problem import Problem, moving
from oblivio.core.source import Batch
from oblivio.core.term import On
from oblivio.core.where import Where, as_where

Pair = dict[str, Tensor]


def fisher(problem: Problem, on: On, where: Where | str = "model.*", size: int = 128) -> Grads:
    """Mean over the rows of ``on`` of the squared gradient of each row's own loss, with the data's labels.

    In evaluation mode; weights and batch-norm statistics are untouched. ``size``: rows a pass, without effect on the
    result beyond rounding. Returns one tensor a weight, of its shape.
    """
    found: Grads = problem.once(f"importance of {where!r}", on, lambda: _fisher(problem, on, where, size))
    return dict(found)


def _fisher(problem: Problem, on: On, where: Where | str, size: int) -> Grads:
    source, weights = (
        problem.source(on),
        {n: w for n, w in problem.weights().items() if n in as_where(where).select(problem)},
    )
    with torch.enable_grad(), problem.evaluating(), moving(problem.nets, ()):
        ruled = _ruled(problem, next(source.batches(1)), weights)
        rest = [n for n in weights if n not in {f"{m}.{p}" for m in ruled for p in ("weight", "bias")}]
        total = {n: torch.zeros_like(w) for n, w in weights.items()}
        for batch in source.batches(size):
            problem.count(source.name, len(batch))
            _through_rules(problem, batch, ruled, total)
            if rest:
                _through_vmap(problem, batch, rest, total)
    return {n: v / len(source) for n, v in total.items()}


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


def _through_rules(problem: Problem, batch: Batch, ruled: dict[str, nn.Module], total: Grads) -> None:
    """One forward and one backward; every ruled layer's squares are added when its output gradient arrives."""
    anchor = torch.zeros((), device=problem.team.device, requires_grad=True)

    def listen(name: str, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if not out.requires_grad:  # the first layer: weights are frozen, so something else must start the graph
            out = out + anchor
        x = inputs[0].detach()
        out.register_hook(lambda g: _add(total, name, RULES[type(module)](module, x, g.detach())))
        return out

    handles = [m.register_forward_hook(partial(listen, n)) for n, m in ruled.items()]
    try:
        out = problem.task.forward(problem.nets, "model", batch)
        if out.requires_grad:
            problem.task.each(out, batch).sum().backward(inputs=[anchor])
    finally:
        for handle in handles:
            handle.remove()


def _add(total: Grads, name: str, squares: Pair) -> None:
    for key, value in squares.items():
        if f"{name}.{key}" in total:
            total[f"{name}.{key}"] += value


def _through_vmap(problem: Problem, batch: Batch, names: list[str], total: Grads) -> None:
    named = {n: w.detach() for n, w in problem.nets.named_parameters()}
    fixed = {n: w for n, w in named.items() if n not in names}
    columns = {c: batch[c] for c in batch.source.columns if isinstance(batch[c], Tensor)}

    def loss(weights: Grads, row: dict[str, Tensor]) -> Tensor:
        one = Batch(batch.source, batch.rows[:1], {c: v[None] for c, v in row.items()})
        out = functional_call(
            problem.nets, {**fixed, **weights}, (lambda nets: problem.task.forward(nets, "model", one),)
        )
        return problem.task.each(out, one).sum()

    squares = vmap(grad(loss), (None, 0), chunk_size=32)({n: named[n] for n in names}, columns)
    for name, value in squares.items():
        total[name] += value.square().sum(0)


def _linear(module: nn.Linear, x: Tensor, g: Tensor) -> Pair:
    if x.dim() == 2:
        return {"weight": g.square().T @ x.square(), "bias": g.square().sum(0)}
    x, g = x.flatten(1, -2), g.flatten(1, -2)
    return {"weight": (g.mT @ x).square().sum(0), "bias": g.sum(1).square().sum(0)}


def _conv(module: nn.Conv2d, x: Tensor, g: Tensor) -> Pair:
    patches = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)  # type: ignore[arg-type]
    each = g.flatten(2) @ patches.mT
    return {"weight": each.square().sum(0).view_as(module.weight), "bias": g.flatten(2).sum(2).square().sum(0)}


def _layer_norm(module: nn.LayerNorm, x: Tensor, g: Tensor) -> Pair:
    hat = F.layer_norm(x, module.normalized_shape, eps=module.eps)
    return _scaled(hat, g, tuple(range(1, x.dim() - module.weight.dim())))


def _batch_norm(module: Any, x: Tensor, g: Tensor) -> Pair:
    hat = F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)
    return _scaled(hat, g, tuple(range(2, x.dim())))


def _scaled(hat: Tensor, g: Tensor, over: tuple[int, ...]) -> Pair:
    each, shift = (hat * g, g) if not over else ((hat * g).sum(over), g.sum(over))
    return {"weight": each.square().sum(0), "bias": shift.square().sum(0)}


RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Pair]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}
