"""Normalisation layers."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from oblivio.core.problem import Problem
from oblivio.core.where import Selection, Where

KINDS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class Norms(Where):
    """Scales and shifts of the model's normalisation layers; none where it has no such layer."""

    def select(self, problem: Problem) -> Selection:
        layers = {f"model.{n}" if n else "model" for n, m in problem.model.named_modules() if isinstance(m, KINDS)}
        return {n: None for n in problem.weights("model.*") if n.rpartition(".")[0] in layers}
