"""Adapters of PEFT, put beside a network's layers by surgery: what they add is zero at first."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import nn

from oblivio.core.errors import BadInput
from oblivio.core.surgery import surgery


def adapters(model: nn.Module) -> dict[str, Any]:
    """The configurations of PEFT's adapters in a model, by their names."""
    found: dict[str, Any] = getattr(model, "peft_config", {})
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what PEFT says of decisions that are right: layouts of weights, ranks of experts, a second adapter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set", UserWarning)
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys", RuntimeWarning)
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        yield


def adapter_weights(model: nn.Module, name: str) -> list[str]:
    """The dotted names of one adapter's weights."""
    return [n for n, _ in model.named_parameters() if f".{name}." in n and ("lora_" in n or "modules_to_save" in n)]


@surgery(appends=True)
def add_adapter(
    nets: MutableMapping[str, nn.Module], *, name: str, config: dict[str, Any], seed: int, net: str = "model"
) -> None:
    """Give ``net`` the LoRA adapter ``name``; it computes what it did, for the second factor of each is zero.

    ``config``: fields of PEFT's LoraConfig, such as r, lora_alpha, lora_dropout, target_modules. The weights of a layer
    with an adapter are called ``<layer>.base_layer.weight``, the adapter's ``<layer>.lora_A.<name>.weight`` and
    ``lora_B``. Several adapters may stand beside one layer; the one added last is active.

    Raises:
        BadInput: no module of the network is meant by ``target_modules``, or there is an adapter of this name.
    """
    from peft import LoraConfig, inject_adapter_in_model

    model = nets[net]
    if name in adapters(model):
        raise BadInput(f"the network {net!r} has an adapter {name!r} already; give another name")
    settings, flags = LoraConfig(**config), [(weight, weight.requires_grad) for weight in model.parameters()]
    there = set(model.modules())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with quiet():
                inject_adapter_in_model(settings, model, adapter_name=name)
        except ValueError as error:
            words = str(error).partition("\n")[0]
            raise BadInput(f"LoRA: {words} Name layers such as q_proj with targets=") from None
    for weight, needs in flags:  # PEFT takes the gradient from all that it does not add; what moves is for a Where
        weight.requires_grad_(needs)
    for module in set(model.modules()) - there:  # a new module would be in training mode, with its dropout at work
        module.training = model.training
    model.peft_config = {**adapters(model), name: settings}  # type: ignore[assignment]


@surgery
def merge_adapters(nets: MutableMapping[str, nn.Module], *, net: str = "model") -> None:
    """Add what the active adapters add to the weights beside them; the network has its first architecture again.

    Raises BadInput where there is none.
    """
    from peft.tuners.lora import LoraLayer

    found = [(n, m) for n, m in nets[net].named_modules() if isinstance(m, LoraLayer)]
    if not found:
        raise BadInput(f"the network {net!r} has no adapter to merge")
    for name, layer in found:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(nets[net].get_submodule(parent), last, layer.get_base_layer())
    del nets[net].peft_config
