"""One-point contraction: the features of the forgotten rows are drawn into one point."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.registry import method
from oblivio.terms import fit


@term(taps=("features",))
def contract(step: Step, on: On, site: str = "features") -> Tensor:
    """The Euclidean norm of features or outputs; its gradient at zero is zero."""
    values = step.tap(on, "features") if site == "features" else step.out(on)
    return values.flatten(1).square().sum(1).add(1e-12).sqrt()


@method(
    paper="OPC: One-Point-Contraction Unlearning Toward Deep Feature Forgetting, 2025",
    needs=("forget", "retain"),
    tasks=("classification", "multilabel"),
    serves=("class",),
    refusal="it takes the forgotten rows to chance, where a model retrained without random rows still gets most right",
    aliases=("one_point_contraction",),
    cost="epochs over forget, and a retain batch beside each",
)
def opc(
    lam: Annotated[float, Field(gt=0)] = 0.1,
    site: Literal["features", "logits"] = "features",
    lr: Annotated[float, Field(gt=0)] = 2e-4,
    epochs: Annotated[float, Field(gt=0)] = 5,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Draw the features of the forgotten rows to the origin, so that nothing about their class can be read off them.

    Equation: min CE(retain) + lam mean |g(forget)|, g the features (or the logits, the published form).
    Needs: forgotten and retained rows; a feature layer.
    Fails: a retrained model does not forget so deeply, so the result can be told from one; it serves the goal
    ``chance`` best, and one class alone can end on any point.
    """
    loss = lam * contract("forget", site) + fit("retain")
    return Descent(loss, opt=adam(lr), over="forget", epochs=epochs, batch=batch)
