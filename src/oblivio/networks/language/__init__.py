"""Language models of Transformers: from configs, from folders, and the names of their parts."""

from oblivio.networks.language.folder import open_model, save_model
from oblivio.networks.language.parts import blocks, embedding, mlp_outputs, routers
from oblivio.networks.language.tiny import gpt2, llama, mixtral
from oblivio.networks.language.tokenizers import bpe_tokenizer, word_tokenizer

__all__ = [
    "blocks",
    "bpe_tokenizer",
    "embedding",
    "gpt2",
    "llama",
    "mixtral",
    "mlp_outputs",
    "open_model",
    "routers",
    "save_model",
    "word_tokenizer",
]
