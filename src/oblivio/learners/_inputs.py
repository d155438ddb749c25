"""The features that a closed-form head stands on: a frozen encoder, and a fixed random expansion."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput, nearest
from oblivio.core.seeds import generator
from oblivio.learners._rows import content, sha256


class Features:
    """``relu(f(x) P)``, or ``f(x)`` where nothing is expanded; shape (n, M), float64.

    The encoder runs in float64: in float32 the last bits of a row's features depend on the rows beside it, and what
    was added could not be taken away again to 1e-8.

    Args:
        encoder: frozen; a copy is used, in evaluation mode.
        layer: dotted name of the layer whose input the features are; None: the encoder's output.
        expand: M; None expands nothing.
        seed: of P, standard normal over the root of the number of features of f.
    """

    def __init__(self, encoder: nn.Module, layer: str | None, expand: int | None, seed: int) -> None:
        self.encoder = copy.deepcopy(encoder).eval().double().requires_grad_(False)
        modules = dict(self.encoder.named_modules())
        if layer is not None and layer not in modules:
            raise BadInput(f"features: the encoder has no layer {layer!r}{nearest(layer, modules)}")
        self.layer, self.expand, self.seed = layer, expand, seed
        self._matrix: Tensor | None = None

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        f = self._encoded(x.double()).flatten(1)
        if self.expand is None:
            return f
        if self._matrix is None:
            drawn = generator(self.seed, "expansion")
            p = torch.randn(f.shape[1], self.expand, generator=drawn, dtype=torch.float64)
            self._matrix = p / math.sqrt(f.shape[1])
        return (f @ self._matrix).relu_()

    def _encoded(self, x: Tensor) -> Tensor:
        if self.layer is None:
            out: Tensor = self.encoder(x)
            return out
        seen: list[Tensor] = []
        layer = self.encoder.get_submodule(self.layer)
        handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.encoder(x)
        finally:
            handle.remove()
        return seen[0]

    def fingerprint(self) -> dict[str, Any]:
        """What two must share to give the same features."""
        weights = sha256(*(content(v) for v in self.encoder.state_dict().values()))
        return {"encoder": weights, "features": self.layer, "expand": self.expand, "seed": self.seed}
