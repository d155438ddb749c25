"""The shape that image networks expect."""

from __future__ import annotations

from oblivio.core.errors import BadInput


def image(inputs: tuple[int, ...], network: str) -> tuple[int, int, int]:
    """``inputs`` as ``(channels, height, width)``; another shape is bad input."""
    if len(inputs) != 3:
        raise BadInput(f"{network} takes images (channels, height, width); these examples have shape {inputs}")
    channels, height, width = inputs
    return channels, height, width
