"""How deep each weight of a network lies: the number of its block. Pieces that treat layers by their depth need it."""

from __future__ import annotations

import re

from torch import nn

from oblivio.networks.language.parts import blocks

BEFORE = -1  # the depth of what comes before the first block: embeddings
FACTOR = ".lora_A."  # in names of an adapter's first factors: where a change is scaled, the second alone is


def depths(model: nn.Module) -> dict[str, int]:
    """The block of every weight by its dotted name, ``BEFORE`` for those defined before the blocks (embeddings).

    Those that come after (the last norm, the head) have the number of blocks. Raises BadInput for a model without
    blocks.
    """
    names = blocks(model)
    number = re.compile(re.escape(names[0].rpartition(".")[0]) + r"\.(\d+)\.")  # the whole number: 1 is not 11
    found: dict[str, int] = {}
    outside = BEFORE
    for name, _ in model.named_parameters():
        inside = number.match(name)
        outside = len(names) if inside else outside
        found[name] = int(inside[1]) if inside else outside
    return found
