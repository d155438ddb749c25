"""Small language models from Transformers' own classes and configs, so that the same code takes the real weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

SPREAD: dict[str, Any] = {"initializer_range": 0.08}  # Transformers' 0.02 is for widths of thousands


def llama(
    vocabulary: int, *, layers: int = 4, width: int = 64, heads: int = 4, ff: int = 128, context: int = 128,
    tied: bool = False, seed: int = 0, **config: Any,
) -> PreTrainedModel:  # fmt: skip
    """A Llama: rotary positions, RMSNorm, SwiGLU, weights drawn by ``seed``. ``config``: more of LlamaConfig's fields.

    The defaults are those of the tiny testbed: 0.19 million weights with 210 words.
    """
    settings = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=ff, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=config.pop("num_key_value_heads", heads),
        max_position_embeddings=context, tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None,
        **SPREAD | config,
    )  # fmt: skip
    return _drawn(LlamaForCausalLM, settings, seed)


def gpt2(
    vocabulary: int, *, layers: int = 2, width: int = 64, heads: int = 4, context: int = 128, seed: int = 0,
    **config: Any,
) -> PreTrainedModel:  # fmt: skip
    """A GPT-2: learned positions, tied embeddings, ``Conv1D`` layers."""
    settings = GPT2Config(
        vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=heads, n_positions=context, bos_token_id=None,
        eos_token_id=None, **SPREAD | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} | config,
    )  # fmt: skip
    return _drawn(GPT2LMHeadModel, settings, seed)


def mixtral(
    vocabulary: int, *, layers: int = 4, width: int = 64, heads: int = 4, ff: int = 64, experts: int = 8,
    chosen: int = 2, context: int = 128, seed: int = 0, **config: Any,
) -> PreTrainedModel:  # fmt: skip
    """A Mixtral: in every block a router sends each token to ``chosen`` of ``experts`` networks of width ``ff``."""
    settings = MixtralConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=ff, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=config.pop("num_key_value_heads", heads),
        num_local_experts=experts, num_experts_per_tok=chosen, max_position_embeddings=context, bos_token_id=None,
        eos_token_id=None, **SPREAD | {"experts_implementation": "eager"} | config,
    )  # fmt: skip
    return _drawn(MixtralForCausalLM, settings, seed)


def _drawn(kind: Any, config: Any, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = kind(config)
    return model
