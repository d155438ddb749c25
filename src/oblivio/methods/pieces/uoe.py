"""UOE: a piece that confines unlearning to one expert of a sparse language model, and holds the routing to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import On, Term
from oblivio.registry import method
from oblivio.tasks.language import ahead, mean
from oblivio.where.experts import experts, scores


class router_anchor(Term):
    """How far the router scores on ``on`` are from going to the experts of ``at`` alone, squared.

    Of the places from which a token that counts is predicted, mean over a row, then over rows; sum over routers.
    """

    def __init__(self, on: On, at: experts) -> None:
        self.on, self.at = on, at

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]
        """The routers, once they are chosen."""
        return tuple(self.at.targets)

    def __call__(self, step: Step) -> Tensor:
        counts = ahead(step.batch(self.on)["y"])[1]
        apart = [self._apart(step, router, chosen) for router, chosen in self.at.targets.items()]
        return mean(sum(apart[1:], start=apart[0])[:, :-1], counts).sum() / step.count(self.on)

    def _apart(self, step: Step, router: str, chosen: list[int]) -> Tensor:
        """|g - a|^2 at every place, shape (n, L), with a = 1 / their number at the chosen experts."""
        hidden = step.tap(self.on, router)
        got = scores(step.call(lambda nets: nets.get_submodule(router)(hidden)), len(step.batch(self.on)))  # type: ignore[union-attr]
        wanted = got.new_zeros(got.shape[-1])
        wanted[chosen] = 1 / len(chosen)
        return (got - wanted).square().sum(-1)

    def __repr__(self) -> str:
        return f"router_anchor({self.on!r})"


@method(
    kind="piece",
    paper="Zhuang et al., UOE: Unlearning One Expert Is Enough For Mixture-of-Experts LLMs, 2024",
    needs=("forget", "retain"),
    tasks=("causal_lm",),
    experts=True,
    on="grad_diff",
    aliases=("seuf", "unlearning_one_expert"),
    cost="one pass over forget and retain for the scores of the routers; no further pass in training",
)
def uoe(
    M: Annotated[int, Field(gt=0)] = 1,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
    by: Literal["forget", "contrast"] = "forget",
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.2,
) -> Callable[[Stage], Stage]:
    """Unlearn in the expert that the forgotten rows are routed to most, and keep sending them there.

    Equation: L + alpha mean |g(t) - a|^2 over forgotten tokens t, g the softmax scores of the target's router and a one
    at the target; only the target expert and that router move. The target has the highest mean score over the places
    from which answer tokens of forgotten rows are predicted (``by`` contrast: the score that most exceeds its mean on
    retained rows, which is not the paper's); ``M`` of them are chosen over all layers; those of one layer share a.
    Needs: a mixture of experts (a dense model is refused), and a contrast: some expert's mean scores on forgotten and
    retained rows differ by ``contrast`` or more. Where all is routed alike attribution carries no signal, and it
    refuses.
    Fails: the expert with the highest score may serve the retained rows as much, which then go with it; ``by`` contrast
    avoids that, and forgets more slowly. One expert needs about ten times the rate of a whole model. The routers that
    stay still route differently where the layers before them change. An optimiser holds state for all experts of the
    target's layer, since they are one tensor.
    """

    def put(plan: Stage) -> Stage:
        where = experts("forget", "retain", M, by, contrast)
        return plan.but(loss=lambda total: total + alpha * router_anchor("forget", where), where=where)

    return put
