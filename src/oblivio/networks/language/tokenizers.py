"""Tokenizers of one's own: whole words for tiny models, byte pairs for larger ones."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

EOS, PAD, UNKNOWN = "<eos>", "<pad>", "<unk>"


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a word, words being what stands between blanks; in order of first occurrence. Unknown: ``<unk>``."""
    words = dict.fromkeys(word for text in texts for word in text.split())
    vocabulary = {word: i for i, word in enumerate([PAD, EOS, UNKNOWN, *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrapped(made)


def bpe_tokenizer(texts: Iterable[str], size: int = 4000) -> PreTrainedTokenizerFast:
    """Byte pairs learned from ``texts``, ``size`` tokens at most; every text can be written in it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=[PAD, EOS, UNKNOWN], initial_alphabet=alphabet,
                                   show_progress=False),
    )  # fmt: skip
    return _wrapped(made)


def _wrapped(made: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=EOS, pad_token=PAD, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
