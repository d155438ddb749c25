"""Masking the output: the honest name of a fake. The weights still know what the mask hides."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.surgery import Wrap, surgery

MASKED = -1e4  # below any logit in practice, within half precision, and a loss on it stays finite


class MaskedOutput(Wrap):
    """A classifier whose logits for ``classes`` are ``MASKED``. A control in tables: nothing has been forgotten."""

    deletes = False
    classes: Tensor

    def __init__(self, net: nn.Module, classes: list[int]) -> None:
        super().__init__()
        if not classes or min(classes) < 0:
            raise BadInput(f"masking an output needs class numbers from 0, not {classes}")
        self.net = net
        self.register_buffer("classes", torch.tensor(sorted(set(classes))))
        self.highest = max(classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, outputs)`` of the net, those of the hidden classes replaced."""
        logits: Tensor = self.net(x)
        if self.highest >= logits.shape[-1]:
            raise BadInput(f"cannot mask class {self.highest}: the model has {logits.shape[-1]} outputs")
        return logits.index_fill(-1, self.classes, MASKED)


@surgery
def mask_output(nets: MutableMapping[str, nn.Module], *, classes: list[int]) -> None:
    """Hide ``classes`` of the model. Its weights are then called ``net.…``."""
    nets["model"] = MaskedOutput(nets["model"], classes)
