"""Networks of which every process holds a shard only, by torch's ``fully_shard``."""

from __future__ import annotations

import torch
from torch import nn

from oblivio.core.surgery import Networks


def shard(nets: Networks, device: torch.device, size: int) -> None:
    """Leave this process one of ``size`` shards of every weight."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (size,))
    for net in nets.values():
        for unit in [*units(net), net]:
            made = fully_shard(unit, mesh=mesh, reshard_after_forward=True)  # else changes would not be seen
            made.set_gradient_divide_factor(1.0)  # shares of a mean add up
            made.set_force_sum_reduction_for_comms(True)


def units(net: nn.Module) -> list[nn.Module]:
    """What is gathered at once: the entries of the outermost lists of equal modules, as blocks of transformers are."""
    found: dict[str, nn.ModuleList] = {}
    for name, module in net.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and not inside and len({type(child) for child in module}) == 1:
            found[name] = module
    return [child for module in found.values() for child in module if any(True for _ in child.parameters())]
