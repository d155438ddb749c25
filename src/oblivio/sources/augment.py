"""Rows shown in another way: noise, and shifts of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(x: Tensor, noise: float, shift: int, rng: torch.Generator) -> Tensor:
    """Each row with Gaussian noise of a deviation drawn from [0, noise]; images (n, C, H, W) are shifted before.

    A shift is up to ``shift`` pixels in both directions, with zeros coming in.
    """
    n = len(x)
    if x.dim() == 4 and shift:
        down, right = torch.randint(2 * shift + 1, (2, n), generator=rng, device=x.device)
        windows = F.pad(x, (shift,) * 4).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
        x = windows[torch.arange(n, device=x.device), :, down, right]
    level = noise * torch.rand((n, *[1] * (x.dim() - 1)), generator=rng, device=x.device, dtype=x.dtype)
    return x + level * torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
