"""Keep the outputs that were stored with a row."""

from __future__ import annotations

from torch import Tensor

from oblivio.core.step import Step
from oblivio.core.term import On, term


@term
def match(step: Step, on: On, column: str = "z") -> Tensor:
    """The squared distance of the outputs to those in ``column``, averaged over a row's outputs.

    Where the model has grown since, the outputs that are stored are compared.
    """
    stored = step.batch(on)[column]
    return (step.out(on)[:, : stored.shape[1]] - stored).square().mean(1)
