"""Rows of tokens: sequences of different lengths, of which only what is to be learned counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids, Source
from oblivio.sources.rows import checked, identities, places

IGNORED = -100  # the label of a token that counts in no loss, as everywhere in this field


@dataclass(frozen=True)
class Origin:
    """Texts, in order of the rows, and ``encode(texts)``, which makes tokens of such as it did of these."""

    texts: Sequence[Any]
    encode: Callable[[Sequence[Any]], Tokens]


class Tokens(Source):
    """Sequences of token ids, each a prompt and what follows it; index views share the data.

    Columns: ``x`` (n, L) token ids, padded on the right to the longest of the rows that are read together; ``y`` (n, L)
    the same ids where they count, -100 at prompts and padding. They are not shifted: the task does that. A causal model
    cannot look to the right, so padding changes nothing of what counts, and no mask goes with it.

    Attributes: ``cut`` counts rows that were shortened to fit; ``origin`` is what they were made from, where that is
    known, and goes with every view: texts in the order of the data, and how such become tokens.

    Args:
        rows: the whole sequences.
        prompts: how many tokens of each are its prompt.
        pad: the id that fills up. Any will do.
        ids: of every row (default: the position).
        columns: further columns, one entry a row, such as ``group`` or ``image``.
    """

    def __init__(
        self, rows: Sequence[Sequence[int]], prompts: Sequence[int], pad: int = 0, ids: Any = None, **columns: Any
    ) -> None:
        lengths = [len(row) for row in rows]
        for i, (length, prompt) in enumerate(zip(lengths, prompts, strict=True)):
            if not 0 <= prompt < length:
                raise BadInput(f"row {i} has {length} tokens, {prompt} of them prompt; at least one must follow it")
        self.flat = torch.tensor([token for row in rows for token in row], dtype=torch.long)
        self.lengths, self.prompts = torch.tensor(lengths, dtype=torch.long), torch.tensor(list(prompts))
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.extra = {name: torch.as_tensor(value) for name, value in columns.items()}
        for name, value in self.extra.items():
            if len(value) != len(lengths):
                raise BadInput(f"column {name!r} has {len(value)} entries for {len(lengths)} rows")
        self.pad, self.columns = pad, ("x", "y", *self.extra)
        self.cut = 0
        self.origin: Origin | None = None
        self._ids, self.index = checked(ids, len(lengths)), torch.arange(len(lengths))
        self._root: Any = self.flat

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ids(self) -> Ids:
        index = self.index.cpu().numpy()
        return index if self._ids is None else self._ids[index]

    @property
    def root(self) -> Any:
        return self._root

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name == "id":
            into["id"] = identities(self.ids, rows)
        elif name in self.extra:
            into[name] = self.extra[name][self.index[rows]]
        elif name in ("x", "y"):
            into["x"], into["y"] = self._padded(self.index[rows])
        else:
            raise BadInput(f"source {self.name!r} has no column {name!r}; it has {', '.join(self.columns)}")

    def _padded(self, at: Tensor) -> tuple[Tensor, Tensor]:
        lengths, device = self.lengths[at][:, None], self.flat.device
        place = torch.arange(int(lengths.max()) if len(at) else 0, device=device)
        real = place < lengths
        x = self.flat[(self.starts[at][:, None] + place).clamp(max=len(self.flat) - 1)].where(real, self.pad)
        return x, x.where(real & (place >= self.prompts[at][:, None]), IGNORED)

    def sequence(self, i: int) -> tuple[list[int], int]:
        """The tokens of row ``i``, and how many of them are its prompt."""
        at = self.index[i]
        start = int(self.starts[at])
        return self.flat[start : start + int(self.lengths[at])].tolist(), int(self.prompts[at])

    def prompt(self, i: int) -> list[int]:
        """The tokens before what counts."""
        tokens, prompt = self.sequence(i)
        return tokens[:prompt]

    def answer(self, i: int) -> list[int]:
        """The tokens that count."""
        tokens, prompt = self.sequence(i)
        return tokens[prompt:]

    @property
    def texts(self) -> list[Any]:
        """The texts of the rows in view. Raises BadInput where only tokens are known."""
        if self.origin is None:
            raise BadInput(f"source {self.name!r} holds tokens of which no text is known; give texts")
        return [self.origin.texts[i] for i in self.index.tolist()]

    def rewritten(self, change: Callable[[Any], Any]) -> Tokens | None:
        """The rows anew, each from ``change(text)``, or left out where that is None; None where all are."""
        texts = [changed for text in self.texts if (changed := change(text)) is not None]
        assert self.origin is not None
        return self.origin.encode(texts).to(self.flat.device) if texts else None

    def take(self, index: Any) -> Tokens:
        return self._view(index=self.index[places(index, len(self)).to(self.index.device)])

    def to(self, device: torch.device) -> Tokens:
        if device == self.flat.device:
            return self
        tensors = {name: getattr(self, name).to(device) for name in ("flat", "lengths", "prompts", "starts", "index")}
        return self._view(**tensors, extra={name: value.to(device) for name, value in self.extra.items()})

    def _view(self, **changed: Any) -> Tokens:
        view = object.__new__(Tokens)
        view.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("_epoch", "_state")}, **changed)
        return view
