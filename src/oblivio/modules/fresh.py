"""Fresh weights: a network as it was before it learned anything, as a net beside the model."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping

import torch
from torch import nn

from oblivio.core.errors import BadInput
from oblivio.core.seeds import mix
from oblivio.core.surgery import surgery


def redraw(module: nn.Module) -> None:
    """Draw all weights anew from torch's default generator, by each module's own ``reset_parameters``.

    Raises BadInput for a module that owns weights and has no ``reset_parameters``.
    """
    for name, part in module.named_modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
        elif any(True for _ in part.parameters(recurse=False)):
            raise BadInput(
                f"the module {name or 'model'} ({type(part).__name__}) has weights and no "
                "reset_parameters(); add one, or give references trained by your own recipe"
            )


@surgery
def add_fresh(nets: MutableMapping[str, nn.Module], *, name: str, seed: int) -> None:
    """Add a net of the model's architecture with fresh weights, drawn from ``seed``.

    What is fitted to data (the preprocessing) is the model's. The model stays as it is.
    """
    if name in nets:
        raise BadInput(f"there is a net {name!r} already; take it out first")
    net = copy.deepcopy(nets["model"]).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, name))
        redraw(net)
    nets[name] = net


@surgery
def drop_net(nets: MutableMapping[str, nn.Module], *, name: str) -> None:
    """Take a net out again."""
    if name == "model" or name not in nets:
        raise BadInput(f"there is no net {name!r} beside the model to take out")
    del nets[name]
