"""Small models that are shown a picture and write: LLaVA from its configs, and a smaller one for the testbeds.

``open_seeing`` opens a folder of such a model; ``save_model`` writes it, with its processor in the tokenizer's place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

from oblivio.core.errors import BadInput
from oblivio.networks.language.folder import CONFIG
from oblivio.networks.language.tiny import SPREAD, llama


def llava(
    vocabulary: int, image_token: int, *, size: int = 16, patch: int = 8, channels: int = 1, layers: int = 2,
    width: int = 64, heads: int = 4, ff: int = 128, context: int = 128, seed: int = 0,
) -> PreTrainedModel:  # fmt: skip
    """A LLaVA: a CLIP vision tower, a projector of two layers, a Llama, all with weights drawn by ``seed``.

    A picture of ``size`` x ``size`` stands at ``(size / patch) ** 2`` image tokens.
    """
    seen = CLIPVisionConfig(
        image_size=size, patch_size=patch, num_channels=channels, hidden_size=width, intermediate_size=ff,
        num_hidden_layers=layers, num_attention_heads=heads, projection_dim=width,
    )  # fmt: skip
    said = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=ff, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=context, bos_token_id=None,
        eos_token_id=None, **SPREAD,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=seen, text_config=said, image_token_id=image_token, vision_feature_layer=-1,
        image_seq_length=(size // patch) ** 2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = LlavaForConditionalGeneration(config)
    return model


class Eyes(nn.Module):
    """A convolutional network that makes tokens of a picture: (n, channels, size, size) to (n, prefix, width)."""

    def __init__(self, size: int, channels: int, prefix: int, width: int, hidden: int = 32) -> None:
        super().__init__()
        self.prefix, reduced = prefix, (size + 3) // 4
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(hidden * reduced * reduced, prefix * width),
        )  # fmt: skip

    def forward(self, pixel_values: Tensor) -> Tensor:
        out: Tensor = self.layers(pixel_values)
        return out.unflatten(1, (self.prefix, -1))


class Seeing(nn.Module):
    """A Llama that is shown pictures: what ``eyes`` make of one takes the place of its image tokens' embeddings."""

    def __init__(self, eyes: Eyes, language: PreTrainedModel, image_token: int) -> None:
        super().__init__()
        self.eyes, self.language, self.config = eyes, language, language.config
        self.config.image_token_id = image_token

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding, as models of Transformers have it."""
        found: nn.Module = self.language.get_input_embeddings()
        return found

    def forward(self, input_ids: Tensor, pixel_values: Tensor | None = None, **inputs: Any) -> Any:
        """Called as a LLaVA is; ``pixel_values`` has a picture for every row that has image tokens, in order."""
        words = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            at = input_ids == self.config.image_token_id
            place = (at.flatten().cumsum(0) - 1).view_as(at)  # no masked_scatter: vmap has no rule for it
            words = torch.where(at[..., None], self.eyes(pixel_values).flatten(0, 1)[place], words)
        return self.language(inputs_embeds=words, **inputs)


def seeing(
    vocabulary: int, image_token: int, *, size: int = 16, channels: int = 1, prefix: int = 4, layers: int = 2,
    width: int = 64, heads: int = 4, ff: int = 128, hidden: int = 32, seed: int = 0, **config: Any,
) -> Seeing:  # fmt: skip
    """A small convolutional network before a Llama, weights drawn by ``seed``; the testbed of the claims.

    ``config``: more of LlamaConfig's fields.
    """
    language = llama(vocabulary, layers=layers, width=width, heads=heads, ff=ff, seed=seed, **config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        eyes = Eyes(size, channels, prefix, width, hidden)
    return Seeing(eyes, language, image_token)


def open_seeing(folder: str | Path) -> tuple[Any, Any]:
    """The image-and-text model of Transformers in a folder, in evaluation mode, and its processor.

    Without a processor its tokenizer comes in its place, and None where the folder has neither.

    Raises:
        BadInput: no such model there, or weights that are a pickle.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    path = Path(folder)
    if not (path / CONFIG).is_file():
        raise BadInput(f"{folder} is no model of Transformers: it does not hold {CONFIG}")
    try:
        model = AutoModelForImageTextToText.from_pretrained(path, use_safetensors=True, dtype="auto")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        words = str(error).partition("\n")[0]
        raise BadInput(f"{folder} cannot be opened as a model of images and texts: {words}") from None
    return model.eval(), _reader(path)


def _reader(path: Path) -> Any:
    from transformers import AutoProcessor, AutoTokenizer

    if any((path / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        return AutoProcessor.from_pretrained(path)
    return AutoTokenizer.from_pretrained(path) if (path / "tokenizer_config.json").is_file() else None
