"""Feature statistics: where each class lay in feature space, and how it was spread."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.modules.features import features

EPS = 1e-5  # keeps the slope of the root finite at zero


def feature_stats(problem: Problem, delta: float = 0.5, gamma1: float = 3.0, gamma2: float = 3.0) -> dict[str, Any]:
    """Mean and inverse correlation of every class's Tukey features, from the training rows.

    Args:
        problem: the trained model, with source ``train``; labels are class numbers.
        delta: power of Tukey's transform.
        gamma1: how much of the mean variance is added to the variances.
        gamma2: how much of the mean covariance is added to the covariances.

    Returns ``classes`` (C,), ``count`` (C,) rows, ``mean`` (C, d), ``precision`` (C, d, d) and ``delta``.

    Raises:
        BadInput: labels that are no class numbers, or features below zero, which have no root.
    """
    labels = torch.cat([batch["y"] for batch in problem.source("train").batches(4096)]).cpu()
    if labels.dim() != 1 or labels.is_floating_point():
        raise BadInput("feature_stats: the training rows have no class numbers as labels; it is for classification")
    rows = features(problem, "train").cpu()
    if float(rows.min()) < 0:
        raise BadInput("feature_stats: features below zero have no Tukey root; name a layer behind a ReLU by features=")
    classes = labels.unique()
    each = [tukey(rows.double(), delta)[labels == c] for c in classes]
    return {
        "classes": classes,
        "count": torch.tensor([len(z) for z in each]),
        "mean": torch.stack([z.mean(0) for z in each]).float(),
        "precision": torch.stack([precision(z, gamma1, gamma2) for z in each]).float(),
        "delta": delta,
    }


def tukey(features: Tensor, delta: float) -> Tensor:
    """Features to the power ``delta``, which draws long tails in."""
    return (features + EPS) ** delta


def precision(rows: Tensor, gamma1: float, gamma2: float) -> Tensor:
    """The pseudo-inverse of the shrunk correlation of rows (n, d): shape (d, d)."""
    centred = rows - rows.mean(0)
    covariance = centred.T @ centred / max(len(rows) - 1, 1)
    for _ in range(2):
        covariance = shrunk(covariance, gamma1, gamma2)
    scale = covariance.diagonal().clamp_min(1e-12).sqrt()
    return torch.linalg.pinv(covariance / scale.outer(scale), hermitian=True)


def shrunk(covariance: Tensor, gamma1: float, gamma2: float) -> Tensor:
    """``C + gamma1 * mean variance * I + gamma2 * mean of the covariances that are not zero * (1 - I)``."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    others = covariance * (1 - eye)
    mean = others.sum() / (others != 0).sum().clamp_min(1)
    return covariance + gamma1 * covariance.diagonal().mean() * eye + gamma2 * mean * (1 - eye)


def distances(features: Tensor, stats: dict[str, Any]) -> Tensor:
    """Squared Mahalanobis distances (n, C) of features (n, d) from every class, all brought to length 1."""
    means, precisions = (stats[name].to(features) for name in ("mean", "precision"))
    rows = torch.nn.functional.normalize(tukey(features, stats["delta"]), dim=1)
    apart = rows[:, None] - torch.nn.functional.normalize(means, dim=1)  # (n, C, d)
    return torch.einsum("ncd,cde,nce->nc", apart, precisions, apart)
