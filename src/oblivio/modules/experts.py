"""Experts: networks of one form, of which one is trained at a time, and a selector that routes every row to one."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.seeds import mix
from oblivio.core.surgery import Networks, Wrap, surgery
from oblivio.modules.fresh import redraw
from oblivio.modules.growing import GrownLinear
from oblivio.modules.heads import last_linear, linear_layer, put_layer


class Experts(Wrap):
    """``forward`` is the active expert, ``predict`` for every row the expert that the selector says.

    The first expert is the network itself; the others and the selector have its form and weights of their own. The
    selector's last layer has an output an expert.
    """

    def __init__(self, net: nn.Module, seed: int) -> None:
        super().__init__()
        if any(isinstance(module, GrownLinear) for module in net.modules()):
            raise BadInput("a head that has grown cannot be drawn anew for another expert; build the model with an "
                           "output for every class of the stream")  # fmt: skip
        self.selector, self.head = _selector(net, seed)
        self.experts = nn.ModuleList([net])
        self.active = 0

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of the active expert."""
        out: Tensor = self.experts[self.active](x)
        return out

    def predict(self, x: Tensor) -> Tensor:
        """The outputs of the expert that the selector gives most to, row by row."""
        chosen = self.chosen(x)
        outs = torch.stack([expert(x) for expert in self.experts], 1)
        return outs[torch.arange(len(chosen), device=chosen.device), chosen]

    def chosen(self, x: Tensor) -> Tensor:
        """The expert of every row, shape (n,)."""
        out: Tensor = self.selector(x)
        return out.argmax(1)

    def add(self, seed: int) -> None:
        """One more expert with fresh weights, which becomes the active one."""
        self.experts.append(_drawn(self.experts[0], seed))
        head = self.selector.get_submodule(self.head)
        assert isinstance(head, GrownLinear)
        head.grow(1, seed)
        self.active = len(self.experts) - 1


def _drawn(net: nn.Module, seed: int) -> nn.Module:
    """A network of the same form with fresh weights; what is fitted to rows stays."""
    made = copy.deepcopy(net).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, "expert"))
        redraw(made)
    return made


def _selector(net: nn.Module, seed: int) -> tuple[nn.Module, str]:
    nets: dict[str, nn.Module] = {"model": _drawn(net, mix(seed, "selector"))}
    layer = last_linear(nets["model"])
    old = linear_layer(nets["model"], layer)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, "selector", "head"))
        put_layer(nets, layer, GrownLinear(nn.Linear(old.in_features, 1, old.bias is not None)))
    return nets["model"], layer


@surgery
def host_experts(nets: MutableMapping[str, nn.Module], *, seed: int) -> None:
    """Make the model the first of experts. Its weights are then called ``experts.0.…``; its answers stay."""
    nets["model"] = Experts(nets["model"], seed)


@surgery
def add_expert(nets: MutableMapping[str, nn.Module], *, seed: int) -> None:
    """Add an expert that has learned nothing, and train it from now on: the forward is another one."""
    hosted(nets).add(seed)


@surgery
def activate_expert(nets: MutableMapping[str, nn.Module], *, expert: int) -> None:
    """Train this expert from now on: the forward is another one."""
    hosted(nets).active = expert


def hosted(nets: Networks) -> Experts:
    """The model, which ``host_experts`` has made."""
    model = nets["model"]
    assert isinstance(model, Experts)
    return model
