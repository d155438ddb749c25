"""Causal language models: every token that counts is predicted from those before it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.source import Batch
from oblivio.core.surgery import Networks
from oblivio.core.task import Task
from oblivio.sources.tokens import IGNORED


def ahead(y: Tensor) -> tuple[Tensor, Tensor]:
    """What each position but the last is to predict, and where that counts; both (n, L - 1)."""
    target = y[:, 1:]
    counts = target != IGNORED
    return target.where(counts, 0), counts


def mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of each row's values where they count, shape (n,)."""
    return (values * counts).sum(1) / counts.sum(1).clamp(min=1)


def answer_log_probs(out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Log p of every token that counts, 0 elsewhere, and where that is; both (n, L - 1), from logits (n, L, V)."""
    target, counts = ahead(y)
    likely = -F.cross_entropy(out[:, :-1].flatten(0, 1).float(), target.flatten(), reduction="none")
    return likely.view_as(counts) * counts, counts


def checkpointed(model: nn.Module) -> None:
    """Let the blocks of a model of Transformers compute their activations again in the backward, as far as they train.

    In the form that gives weights within a block their gradients although nothing before it needs one: in the other
    form adapters get none, and nobody says so. Raises BadInput for a model that cannot.
    """
    if _checkpointing(model):
        return
    able = next((m for m in model.modules() if getattr(m, "supports_gradient_checkpointing", False)), None)
    if able is None:
        raise BadInput(f"{type(model).__name__} cannot compute activations again; leave out checkpointing=True")
    name = "activation_checkpointing_enable"  # what later releases of Transformers call it
    enable: Any = getattr(able, name if hasattr(able, name) else "gradient_checkpointing_enable")
    enable({"use_reentrant": False})


def _checkpointing(model: nn.Module) -> bool:
    return any(getattr(m, "gradient_checkpointing", False) for m in model.modules())


def _logits(out: Any) -> Tensor:
    logits: Tensor = getattr(out, "logits", out)
    return logits


class CausalLM(Task):
    """Outputs are logits (n, L, V); ``y`` (n, L) has token ids where they count and -100 elsewhere, not shifted.

    The loss of a row is the mean negative log-likelihood of its tokens that count, so that every row weighs the same,
    whatever its length; its score is the sum. Prompts and padding enter neither. Nets are causal language models of
    Transformers, or modules that take ``input_ids`` as these do.

    Args:
        tokenizer: of the model, for what generates text; training needs none.
        pack: the rows of a batch pass as one sequence without padding, in which none sees another; for rows of very
            different lengths. The model has to be one that Transformers masks by its positions.
        checkpointing: the blocks of a network compute their activations again in the backward, in place of keeping
            them: less memory for a third more time.
    """

    name, figure = "causal_lm", "token accuracy"
    wide = True

    def __init__(self, tokenizer: Any = None, *, pack: bool = False, checkpointing: bool = False) -> None:
        self.tokenizer, self.pack, self.checkpointing = tokenizer, pack, checkpointing

    def recomputes(self, nets: Networks) -> bool:
        return self.checkpointing or any(_checkpointing(net) for net in nets.values())

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What a network is called with."""
        return {"input_ids": batch["x"], "use_cache": False}

    def forward(self, nets: Networks, net: str, batch: Batch) -> Tensor:
        model = nets[net]
        if self.checkpointing:
            checkpointed(model)
        if not len(batch):  # a process without rows makes the pass too, for the others may wait for it
            return _logits(model(**self.inputs(batch.but(x=batch["x"].new_zeros(1, 1)))))[:0]
        if self.pack:
            return self._packed(model, batch)
        return _logits(model(**self.inputs(batch)))

    def _packed(self, model: nn.Module, batch: Batch) -> Tensor:
        """The logits of all rows from one sequence, put back in rows; zero at padding."""
        x, y = batch["x"], batch["y"]
        places = torch.arange(x.shape[1], device=x.device).expand_as(x)
        last = torch.where(y != IGNORED, places, 0).amax(1, keepdim=True)  # what counts ends a row
        real = places <= last
        sequence = batch.but(x=x[real][None])
        flat = _logits(model(**self.inputs(sequence), position_ids=places[real][None]))[0]
        return flat.new_zeros(*x.shape, flat.shape[1]).index_put((real,), flat)

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        return -mean(*answer_log_probs(out, batch["y"]))

    def score(self, out: Tensor, batch: Batch) -> Tensor:
        """The log-likelihood of the whole answer: a sum over its tokens."""
        return answer_log_probs(out, batch["y"])[0].sum(1)

    def distance(self, out: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """KL(target || out) of the next token, averaged over the row's tokens that count."""
        now, then = (F.log_softmax(logits[:, :-1].float(), 2) for logits in (out, target))
        apart = F.kl_div(now, then, reduction="none", log_target=True).sum(2)
        return mean(apart, ahead(batch["y"])[1])

    def relabel(self, out: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Any tokens of the vocabulary in place of those that count."""
        drawn = torch.randint(out.shape[2], batch["y"].shape, generator=generator, device=out.device)
        return drawn.where(batch["y"] != IGNORED, IGNORED)

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """log(p / (1 - p)) of p, the geometric mean of the probabilities of the row's tokens that count."""
        likely = -self.each(out, batch).double()
        return (likely - torch.log(-torch.expm1(likely.clamp(max=-1e-12)))).to(out.dtype)

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        """The share of a row's tokens that count which are the likeliest."""
        target, counts = ahead(batch["y"])
        return mean((out[:, :-1].argmax(2) == target).float(), counts)
