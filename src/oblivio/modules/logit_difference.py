"""LogitDifference: a language model from whose logits those of a small assistant are subtracted, token by token."""

from __future__ import annotations

import copy
import math
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.surgery import Wrap, surgery
from oblivio.networks.language.parts import blocks

NEVER = -1000.0  # the logit of what is not to be written


class LogitDifference(Wrap):
    """Logits ``z = z_model + w z_assistant``, with w below 0 and a relative-top filter.

    The filter keeps the tokens whose log p in ``model`` is at least the greatest plus log(tau), and never fewer than
    int(tau V) of the V tokens: where the model is sure, the assistant has no say. Elsewhere the assistant's logits
    count as 0, and when text is written the model's as -1000. Nothing of the model is changed.

    Args:
        model: a causal language model of Transformers, or another such Wrap.
        assistant: one with the same vocabulary.
        w: what the assistant's logits are multiplied by.
        tau: of the filter.
    """

    def __init__(self, model: nn.Module, assistant: nn.Module, w: float, tau: float) -> None:
        super().__init__()
        self.model, self.assistant, self.w, self.tau = model, assistant, w, tau
        self.training = model.training

    @property
    def config(self) -> Any:
        """Of the model."""
        return self.model.config

    def forward(self, **inputs: Any) -> Tensor:
        """Logits (n, L, V) as they are scored; takes what the model takes."""
        return difference(_logits(self.model, inputs), _logits(self.assistant, inputs), self.w, self.tau)

    def predict(self, **inputs: Any) -> Tensor:  # type: ignore[override]
        """The same: what is served is what is computed."""
        return self(**inputs)

    def generate(self, *args: Any, **settings: Any) -> Any:
        """What the model's own ``generate`` does, each step's logits being the difference.

        The model keeps its cache of keys and values; the assistant reads the whole text at every step.
        """
        from transformers import LogitsProcessorList

        mask = settings.get("attention_mask")
        given = settings.pop("logits_processor", None) or ()
        model: Any = self.model
        first = self._processor(mask)
        return model.generate(*args, logits_processor=LogitsProcessorList([first, *given]), **settings)

    def _processor(self, mask: Tensor | None) -> Any:
        from transformers import LogitsProcessor

        wrap = self

        class Subtract(LogitsProcessor):
            def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
                said = _logits(wrap.assistant, continued(input_ids, mask))[:, -1]
                return difference(scores, said, wrap.w, wrap.tau, writing=True)

        return Subtract()


def _logits(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    out = model(**inputs)
    logits: Tensor = getattr(out, "logits", out)
    return logits


def continued(ids: Tensor, mask: Tensor | None) -> dict[str, Any]:
    """What a model is called with: prompts, padded where ``mask`` is 0, and what follows; beams repeat their prompt."""
    if mask is None:
        return {"input_ids": ids, "use_cache": False}
    mask = mask.repeat_interleave(len(ids) // len(mask), 0)
    mask = torch.cat([mask, mask.new_ones(len(ids), ids.shape[1] - mask.shape[1])], 1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places, "use_cache": False}


def kept(logits: Tensor, tau: float) -> Tensor:
    """Which tokens the relative-top filter keeps; a mask of the shape of ``logits`` (..., V)."""
    likely = logits.log_softmax(-1)
    least = max(1, int(tau * logits.shape[-1]))
    bound = torch.minimum(likely.amax(-1) + math.log(tau), likely.topk(least).values[..., -1])
    return likely >= bound[..., None]


def difference(logits: Tensor, assistant: Tensor, w: float, tau: float, writing: bool = False) -> Tensor:
    """``logits + w assistant`` where the filter keeps a token, else ``logits``, or -1000 when text is written."""
    keep = kept(logits, tau)
    rest = torch.full_like(logits, NEVER) if writing else logits
    return torch.where(keep, logits + w * assistant, rest)


def beneath(model: nn.Module) -> nn.Module:
    """The network that Wraps stand around, under their attribute ``model``."""
    while isinstance(model, Wrap):
        model = model.model  # type: ignore[assignment]
    return model


@surgery(appends=True)
def truncated(nets: MutableMapping[str, nn.Module], *, name: str, blocks: int, of: str = "model") -> None:
    """Make the net ``name`` of the embedding, the first ``blocks`` blocks, the last norm and the head of ``of``.

    The weights are not copied but shared: both nets have them, and adapters are to be what moves.

    Raises BadInput where there is such a net already, or the network has fewer blocks.
    """
    if name in nets:
        raise BadInput(f"there is a net {name!r} already; give another name")
    nets[name] = _first_blocks(beneath(nets[of]), blocks)


def _first_blocks(model: nn.Module, count: int) -> nn.Module:
    every = blocks(model)
    if not 1 <= count <= len(every):
        raise BadInput(f"an assistant of {count} blocks: the model has {len(every)}; give a number from 1 to that")
    tensors = [*model.parameters(), *model.buffers()]
    made = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    listed = every[0].rpartition(".")[0]
    parent, _, last = listed.rpartition(".")
    setattr(made.get_submodule(parent), last, made.get_submodule(listed)[:count])  # type: ignore[index]
    config: Any = made.config
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:count]
    return made


@surgery
def subtract(nets: MutableMapping[str, nn.Module], *, assistant: str, w: float, tau: float) -> None:
    """Serve the model with the net ``assistant`` subtracted, which is no net of its own any more: other answers."""
    nets["model"] = LogitDifference(nets["model"], nets.pop(assistant), w, tau)
