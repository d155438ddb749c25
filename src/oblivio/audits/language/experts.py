"""Experts: whether tokens still go to the experts that they went to before a change."""

from __future__ import annotations

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.problem import Nets, Problem
from oblivio.core.source import Batch
from oblivio.core.term import On
from oblivio.tasks.language import ahead, mean
from oblivio.where.experts import listening, router_modules, scores


def overlap(before: Problem, after: Problem, on: On, k: int | None = None) -> dict[str, float]:
    """The share of a token's k experts that it still goes to after a change, by router: 1 where routing has stayed.

    After UOE (Unlearning One Expert Is Enough, 2024), whose finding is that unlearning all weights of a sparse model
    drives it from over 0.9 below 0.6. Of the places from which tokens that count are predicted, mean over a row, then
    over rows; one pass of each model, in evaluation mode.

    Args:
        before: a problem with the model as it was.
        after: one with a model of the same form.
        on: a source of ``after``.
        k: how many experts a token goes to; default: what the model's configuration says.

    Raises:
        BadInput: a dense model, models of different form, or no number of experts.
    """
    names = router_modules(after)
    if names != router_modules(before):
        raise BadInput("the two models have different routers; compare a model with what was made of it")
    k = k or getattr(getattr(after.model, "config", None), "num_experts_per_tok", None)
    if not k:
        raise BadInput("the model does not say how many experts a token goes to; give k=")
    with torch.no_grad(), before.evaluating(), listening(before) as then, listening(after) as now:

        def each(nets: Nets, batch: Batch) -> Tensor:
            before.task.forward(before.nets, "model", batch)
            after.task.forward(nets, "model", batch)
            counts = ahead(batch["y"])[1]
            shared = [_shared(then[name], now[name], len(batch), k)[:, :-1] for name in names]
            return torch.stack([mean(each, counts) for each in shared], 1)

        means = after.tabulate(on, each).double().mean(0).tolist()
    return dict(zip(names, means, strict=True))


def _shared(one: Tensor, other: Tensor, rows: int, k: int) -> Tensor:
    """The share of the k highest that two routings have in common at every place, shape (rows, places)."""
    a, b = (scores(logits, rows).topk(k, -1).indices for logits in (one, other))
    return (a[..., :, None] == b[..., None, :]).any(-1).float().mean(-1)
