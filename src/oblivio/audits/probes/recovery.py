"""Recovery: the original's last layer behind a linear map from the new features to the old ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oblivio.audits.case import Case, Look
from oblivio.audits.probe import DoesNotApply, Value, needs_features, probe
from oblivio.audits.probes.features import ridge, sampled, scored
from oblivio.audits.seen import at, feature_layer

STRENGTH = 1e-3  # of the ridge
CLOSE = 1e-3  # relative distance of outputs that are taken for the same


@probe("gone", "named by the original's last layer on mapped features, forgotten rows", "share", about="features",
       needs=("forget", "retain"))  # fmt: skip
def recovery(case: Case, look: Look, others: Sequence[Look]) -> Value:
    """The training-free attack of One-Point Contraction (2025).

    A ridge map, ``argmin |[g, 1] A - g0|^2 + 1e-3 |A|^2`` with the features g of this model and g0 of the original on
    retained rows, takes the forgotten rows' features to the original's last layer. What that names rightly was hidden
    by the change and not removed. A retrained model is above chance too.
    """
    if len(case.classes) == 1:
        raise DoesNotApply("one class alone goes: it can end on any one point, and whether that is mapped to the "
                           "class says nothing")  # fmt: skip
    if case.problem.task.name == "regression":
        raise DoesNotApply("a regression names no class that could be brought back")
    head = last_layer(case)
    back = ridge(_with_one(look, "retain"), needs_features(case.original, "retain").double(), STRENGTH)
    with torch.no_grad():
        out = head((_with_one(look, "forget") @ back).to(head.weight)).cpu()
    return scored(case, sampled(case, "forget"), out)


def last_layer(case: Case) -> nn.Linear:
    """The original's layer from features to outputs; DoesNotApply where something else makes the outputs of them."""
    subject, features = case.original.subject, needs_features(case.original, "forget")
    there, served = at(case.problem, subject), case.original["forget"].out[case.sample["forget"]].flatten()
    layer = there.nets.get_submodule(feature_layer(there, subject) or "")
    if isinstance(layer, nn.Linear) and layer.in_features == features.shape[1]:
        with torch.no_grad():
            out = layer(features.to(layer.weight)).float().cpu().flatten()
        if out.shape == served.shape and (out - served).norm() <= CLOSE * served.norm():
            return layer
    raise DoesNotApply("what follows the features is not one linear layer that gives the model's outputs")


def _with_one(look: Look, on: str) -> Tensor:
    features = needs_features(look, on).double()
    return torch.cat([features, torch.ones(len(features), 1, dtype=torch.double)], 1)
