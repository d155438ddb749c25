"""Vision-language models: causal language models that are shown pictures too."""

from __future__ import annotations

from typing import Any

from oblivio.core.source import Batch
from oblivio.tasks.language import CausalLM


class VisionLanguage(CausalLM):
    """As CausalLM, of rows with a picture each in the column ``image``, as a network takes ``pixel_values``.

    Where a picture stands is said by image tokens in the prompt, as many as the network makes of one picture; like all
    of a prompt they count in no loss. A source without the column is of texts alone; in one with a column ``pictured``
    (n,) of true and false the pictures of some rows are not shown, for these have no image tokens. See
    ``data.language.pictures``, which makes all of these. Networks are those of Transformers that take images and texts
    (LLaVA and its kin), or modules that are called as these are.
    """

    name = "vision_language"

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What a network is called with; the pictures, where rows have some."""
        columns = list(batch)
        if "image" not in columns:
            return super().inputs(batch)
        shown = batch["image"]
        if "pictured" in columns:
            shown = shown[batch["pictured"]]
        return {**super().inputs(batch), **({"pixel_values": shown} if len(shown) else {})}
