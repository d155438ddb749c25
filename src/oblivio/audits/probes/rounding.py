"""Rounding: weights on a coarse grid, where a small change that hid what is known is undone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from oblivio.audits.case import Case, Look
from oblivio.audits.probe import Value, of_task, probe
from oblivio.audits.seen import at


@probe("gone", "with weights of 8 bits, forgotten rows", "task", about="outputs")
def rounded_8(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The task's figure on forgotten rows when weights are rounded to 8 bits.

    A method that moves weights by less than half a step of the grid is undone by it (Catastrophic Failure of LLM
    Unlearning via Quantization, 2024).
    """
    return _rounded(case, look, 8)


@probe("gone", "with weights of 4 bits, forgotten rows", "task", about="outputs")
def rounded_4(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The same with 4 bits."""
    return _rounded(case, look, 4)


def _rounded(case: Case, look: Look, bits: int) -> Value:
    nets = {**look.subject.nets, "model": rounded(look.subject.nets["model"], bits)}
    there = at(case.problem, replace(look.subject, nets=nets))
    task = case.problem.task
    with torch.no_grad():
        quality = there.tabulate("forget", lambda nets, batch: task.quality(there.served(nets, batch), batch))
    return of_task(case, quality.cpu())


def rounded(model: nn.Module, bits: int) -> nn.Module:
    """A copy whose weight matrices are rounded; biases and norms, which deployed models keep as they are, stay."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            if weight.dim() > 1:
                weight.copy_(on_grid(weight, bits))
    return other


def on_grid(weight: Tensor, bits: int) -> Tensor:
    """Each output's weights at the nearest multiple of its step: its greatest weight has the number ``2^(bits-1) - 1``.

    One step for each output, as is usual for deployed models: with one for a whole tensor a single large weight would
    take all the others to 0 in 4 bits, and the figure would be of a broken model.
    """
    most = weight.flatten(1).abs().amax(1).reshape(-1, *[1] * (weight.dim() - 1))
    step = (most / (2 ** (bits - 1) - 1)).clamp_min(torch.finfo(weight.dtype).tiny)
    return (weight / step).round() * step
