"""The part of a model that is fitted to its training rows: made for the original, and anew for every reference."""

from __future__ import annotations

import torch
from torch import nn

from oblivio.core.source import Source
from oblivio.data.dataset import Layout, Preprocess
from oblivio.modules.preprocess import Standardise
from oblivio.modules.table import TablePreprocess


def fit_preprocess(preprocess: Preprocess, source: Source) -> nn.Module:
    """The module that goes in front of a network trained on ``source``, fitted to these rows alone.

    Args:
        preprocess: of the ``Dataset``: a table's ``Layout``, ``"channels"`` for images, or None.
        source: the rows that the model is trained on; column ``x`` is read, images in passing.

    Returns:
        ``TablePreprocess``, ``Standardise`` or ``nn.Identity``.
    """
    if preprocess is None:
        return nn.Identity()
    if isinstance(preprocess, Layout):
        module: Standardise | TablePreprocess = TablePreprocess(preprocess.sizes, preprocess.gaps)
    else:
        module = Standardise.identity(tuple(source.batch(torch.arange(1))["x"].shape[1:]))
    module.refit(source)
    return module
