"""Random labels for the forgotten rows, true ones for the rest."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.registry import method


@method(
    paper="Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (as a baseline)",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("random_label", "random_labels", "random_labeling", "rl", "amnesiac"),
    cost="epochs over forget, and a retain batch beside each",
)
def relabel(
    lr: Annotated[float, Field(gt=0)] = 0.01,
    epochs: Annotated[float, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 64,
    wd: Annotated[float, Field(ge=0)] = 5e-4,
) -> Stage:
    """Train the forgotten rows towards random labels while the retained ones keep theirs.

    Equation: min CE(forget, random y') + CE(retain); y' is drawn anew at every step, the true label included.
    The card's form passes all forgotten rows and then all retained ones in each epoch; here every step sums a batch of
    both, which costs less and disturbs the retained rows more: its claim fails on them.
    Needs: forgotten and retained rows with labels.
    Fails: pushed far, the forgotten rows end below what a retrained model gives them, which itself shows that they
    were special.
    """
    loss = terms.relabel("forget") + terms.fit("retain")
    return Descent(loss, opt=sgd(lr, 0.9, wd), over="forget", epochs=epochs, batch=batch)
