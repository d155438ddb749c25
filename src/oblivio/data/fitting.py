"""The part of a model that is fitted to its training rows: made for the original, and anew for every reference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.data.dataset import Layout, Preprocess
from oblivio.modules.preprocess import Standardise
from oblivio.modules.table import fit_table

AT_ONCE = 4096


def fit_preprocess(preprocess: Preprocess, source: Source) -> nn.Module:
    """The module that goes in front of a network trained on ``source``, fitted to these rows alone.

    Args:
        preprocess: of the ``Dataset``: a table's ``Layout``, ``"channels"`` for images, or None.
        source: the rows that the model is trained on; column ``x`` is read, images in passing.

    Returns:
        ``TablePreprocess``, ``Standardise`` or ``nn.Identity``.
    """
    if isinstance(preprocess, Layout):
        return fit_table(torch.from_numpy(column(source, "x")), preprocess.sizes, preprocess.gaps)
    return _fit_channels(source) if preprocess == "channels" else nn.Identity()


def _fit_channels(source: Source) -> Standardise:
    """Mean and deviation of each channel in one pass, without holding the images."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    low, high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    for batch in source.batches(AT_ONCE):
        x: Tensor = batch["x"]
        values = x.transpose(0, 1).flatten(1).double()
        count += values.shape[1]
        total, squares = total + values.sum(1), squares + values.square().sum(1)
        low, high = torch.minimum(low, values.amin(1)), torch.maximum(high, values.amax(1))
    mean = total / count
    std = torch.where(low == high, 1.0, (squares / count - mean.square()).clamp(min=0).sqrt())
    return Standardise(mean.float().view(-1, 1, 1), std.float().view(-1, 1, 1))
