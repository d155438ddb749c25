"""Membership: scores that tell learned texts from others, larger = less like a member, and what follows from them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oblivio.audits import auc
from oblivio.audits.language.responses import Responses, device_of, evaluating, numbers, serving
from oblivio.core.errors import BadInput
from oblivio.core.problem import moving
from oblivio.core.source import Source
from oblivio.sources.tokens import IGNORED
from oblivio.tasks.language import CausalLM

SHARE = 0.4  # of the least likely tokens; that of the benchmarks, where attacks take 0.2
FLAT = 1e-6  # least variance of a next-token distribution
SEVERAL = 32  # models on a side, from which on every row has a deviation of its own


def loss(responses: Responses) -> Tensor:
    """The mean negative log-likelihood of a token, shape (n,)."""
    return -responses.means("log_probs")


def zlib_ratio(responses: Responses, texts: Sequence[str]) -> Tensor:
    """``loss / len(zlib(text))`` in bytes of the compressed UTF-8, shape (n,). Texts are those of the answers."""
    _paired(texts, responses)
    return loss(responses) / numbers(len(zlib.compress(text.encode())) for text in texts)


def reference(responses: Responses, of_reference: Responses) -> Tensor:
    """``loss`` less that of a model which never saw the texts, shape (n,)."""
    _paired(responses, of_reference)
    return loss(responses) - loss(of_reference)


def min_k(responses: Responses, share: float = SHARE) -> Tensor:
    """Less the mean of the lowest ``share`` of an answer's log-probabilities, of one at least; shape (n,)."""
    return numbers(_lowest(row, share) for row in responses.rows("log_probs"))


def min_k_pp(responses: Responses, share: float = SHARE) -> Tensor:
    """As ``min_k``, on log-probabilities less their mean and by their deviation under the model itself (Min-K%++)."""
    columns = zip(*(responses.rows(name) for name in ("log_probs", "entropies", "variances")), strict=True)
    standard = ((log_p + entropy) / variance.clamp(min=FLAT).sqrt() for log_p, entropy, variance in columns)
    return numbers(_lowest(row, share) for row in standard)


def _lowest(values: Tensor, share: float) -> Tensor:
    """Less the mean of the lowest, rounded down in number as in the published code."""
    if not 0 < share <= 1:
        raise BadInput(f"share={share:g}; it must be above 0 and at most 1")
    return -values.sort().values[: max(1, math.floor(share * len(values) + 1e-9))].mean()


def gradient_norm(model: nn.Module, source: Source, *, eos: int, p: float = 2.0) -> Tensor:
    """The mean over all weights of the p-norm of the gradient of one row's loss, shape (n,); one backward a row.

    Args:
        model: a causal language model or a Wrap; no weight of it moves.
        source: rows of tokens.
        eos: the end-of-text token, which is no part of the loss.
        p: of the norm.
    """
    source, found = source.to(device_of(model)), []
    with torch.enable_grad(), evaluating(model), moving(model, [name for name, _ in model.named_parameters()]):  # type: ignore[arg-type]
        for batch in source.batches(1):
            y = batch["y"].masked_fill(_closing(batch["y"], eos), IGNORED)
            row = batch.but(y=y)
            out = CausalLM().forward(serving(model), "model", row)
            grads = torch.autograd.grad(CausalLM().each(out, row).sum(), list(model.parameters()), allow_unused=True,
                                        materialize_grads=True)  # fmt: skip
            found.append(torch.stack([grad.double().norm(p) for grad in grads]).mean())
    return numbers(found)


def _closing(y: Tensor, eos: int) -> Tensor:
    """Where the end-of-text token closes a row, shape of ``y``."""
    counts = y != IGNORED
    return counts & (counts.cumsum(1) == counts.sum(1, keepdim=True)) & (y == eos)


def log_odds(responses: Responses) -> Tensor:
    """``log(P / (1 - P))`` of the probability per token, which is nearly normal over models; shape (n,)."""
    likely = responses.means("log_probs").clamp(max=-1e-12)
    return likely - torch.log(-torch.expm1(likely))


def lira(odds: Tensor, out: Tensor, within: Tensor | None = None) -> Tensor:
    """The likelihood ratio of a row's log odds under models that never saw it (Carlini et al., 2022), shape (n,).

    Offline, without models that saw it: ``(mean_out - odds) / sd_out``. Online: ``log N(odds | out) -
    log N(odds | within)``. With fewer than 32 models on a side it has one deviation for all rows, since that of a
    single row is then mostly noise; a single model gives none, and the deviation is 1.

    Args:
        odds: of the model, shape (n,).
        out: of models that never saw the rows, shape (models, n).
        within: of models that saw them, shape (models, n).

    Raises:
        BadInput: no model, other rows, or the online form with a single model on a side.
    """
    for side in (out, out if within is None else within):
        if side.dim() != 2 or not len(side) or side.shape[1:] != odds.shape:
            raise BadInput(f"log odds of reference models have shape {tuple(side.shape)}; give (models, {len(odds)})")
    if within is None:
        return (out.mean(0) - odds) / _deviation(out)
    if min(len(out), len(within)) < 2:
        raise BadInput("the online form needs two models or more that saw the rows, and two that did not")
    never, seen = (torch.distributions.Normal(side.mean(0), _deviation(side)) for side in (out, within))
    return never.log_prob(odds) - seen.log_prob(odds)


def _deviation(models: Tensor) -> Tensor:
    if len(models) == 1:
        return torch.ones_like(models[0])
    variance = models.var(0)
    if len(models) < SEVERAL:
        variance = variance.mean().expand_as(variance)
    return variance.clamp(min=1e-12).sqrt()


def _paired(ours: Sequence[str] | Responses, theirs: Responses) -> None:
    if len(ours) != len(theirs):
        raise BadInput(f"{len(ours)} rows on one side, {len(theirs)} on the other; give the same rows in one order")


# --- what scores say


def mia_auc(forget: Tensor, holdout: Tensor) -> float:
    """``P(s(holdout) > s(forget))``, a tie counted as half: 1 = memorised, 0.5 = no signal, less = over-forgotten.

    The other convention, in which a member is the positive and ``privleak`` was first written, is one less this.
    """
    return auc.auc(holdout, forget)[0]


@dataclass(frozen=True)
class Leak:
    """Privacy leakage in percent, and the AUCs of the model and of the retrained one that it is made of.

    ``value`` is -100 where the forget set is plainly memorised beside a retrained model at chance, 0 where it is as
    for the retrained one, above 0 where it is over-forgotten.
    """

    value: float
    auc: float
    retrained_auc: float


def privleak(auc: float, retrained: float = 0.5) -> Leak:
    """``100 ((1 - AUC) - (1 - AUC_retrained)) / (1 - AUC_retrained)`` of ``mia_auc``; without a retrained model 0.5.

    Raises:
        BadInput: the retrained model has an AUC of 1, against which nothing can be held.
    """
    if retrained >= 1:
        raise BadInput("the retrained model has an AUC of 1: the two sets differ without any learning; choose a "
                       "holdout set of the same kind as the forget set")  # fmt: skip
    return Leak(100 * ((1 - auc) - (1 - retrained)) / (1 - retrained), auc, retrained)
