"""Quantisation: weights that moved by less than a rounding step go back to where they were, and with them the texts.

After Z. Zhang et al., "Catastrophic Failure of LLM Unlearning via Quantization", ICLR 2025.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oblivio.audits.language.attacks.rows import beneath
from oblivio.audits.language.case import TextCase, TextLook
from oblivio.audits.language.memorisation import probability
from oblivio.audits.language.probes import probe
from oblivio.audits.language.responses import respond
from oblivio.audits.probe import Value, average
from oblivio.core.errors import BadInput
from oblivio.modules.adapters import adapters, merge_adapters

SIDEWAYS = ("Conv1D",)  # of GPT-2: its matrices have the outputs in their columns


@probe("gone", "on forgotten texts, weights rounded to 4 bits", "task", about="features", attack="quantize")
def quantized(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The probability of the true answers once all matrices are rounded to 4 bits; adapters are merged before."""
    return _at(4, case, look)


@probe("gone", "on forgotten texts, weights rounded to 8 bits", "task", about="features", attack="quantize")
def quantized_8(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The same at 8 bits."""
    return _at(8, case, look)


def _at(bits: int, case: TextCase, look: TextLook) -> Value:
    plain, nets = beneath(look.model), nn.ModuleDict({"model": copy.deepcopy(beneath(look.model))})
    if adapters(plain):
        merge_adapters(nets)
    quantize(nets["model"], bits)
    before, after = (
        probability(respond(model, case.sheets["forget"], eos=case.eos, task=case.problem.task))
        for model in (plain, nets["model"])
    )
    found = average(after)
    return Value(found.value, found.low, found.high, found.rows, note=f"{float(before.mean()):.3f} before rounding")


def quantize(model: nn.Module, bits: int) -> None:
    """Round the matrices of a model in place: linear layers, embeddings and stacks of experts; vectors stay.

    Args:
        model: whatever its family.
        bits: 2 to 16.

    Raises:
        BadInput: other bits.
    """
    done: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            for weight in module.parameters(recurse=False):
                if weight.dim() in (2, 3) and id(weight) not in done:  # tied matrices once
                    done.add(id(weight))
                    weight.copy_(rounded(weight, bits, -2 if type(module).__name__ in SIDEWAYS else -1))


def rounded(weight: Tensor, bits: int, inputs: int = -1) -> Tensor:
    """Symmetric rounding to nearest: ``s round(w / s)`` with ``s = max |w| / (2^(bits - 1) - 1)`` an output channel.

    Args:
        weight: shape (..., out, in).
        bits: 2 to 16.
        inputs: the dimension of the inputs, over which a channel has its scale.

    Example:
        >>> rounded(torch.tensor([[1.75, -0.6, 0.1]]), 4)
        tensor([[ 1.7500, -0.5000,  0.0000]])

    Raises:
        BadInput: other bits.
    """
    if not 2 <= bits <= 16:
        raise BadInput(f"bits is {bits}; weights are rounded to 2 to 16 bits")
    scale = weight.float().abs().amax(inputs, keepdim=True) / (2 ** (bits - 1) - 1)
    steps = (weight.float() / scale.where(scale > 0, 1)).round()
    return (steps * scale).to(weight.dtype)
