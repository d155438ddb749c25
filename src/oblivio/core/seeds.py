"""Randomness as a function of keys, never a state: watching, killing or resuming a run cannot change a draw."""

from __future__ import annotations

import zlib

import torch

MASK = (1 << 64) - 1


def mix(*keys: int | str) -> int:
    """A 63-bit seed from integers and names (splitmix64 finaliser, folded over the keys)."""
    state = 0x9E3779B97F4A7C15
    for key in keys:
        word = zlib.crc32(key.encode()) if isinstance(key, str) else key
        state = (state ^ (word & MASK)) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state >> 1


def generator(*keys: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator seeded with ``mix(*keys)``."""
    return torch.Generator(device).manual_seed(mix(*keys))


def seed_device(value: int, device: torch.device) -> None:
    """Seed the default generators that layers such as dropout draw from: the CPU's and, if in use, the device's."""
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
