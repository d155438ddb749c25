"""A LoRA adapter: added when its stage opens, and all that moves."""

from __future__ import annotations

from collections.abc import Sequence

from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem, rng
from oblivio.core.where import Selection, Where
from oblivio.modules.adapters import adapter_weights, adapters, add_adapter


class lora(Where):
    """The weights of a LoRA adapter of PEFT beside the linear layers of the model (Hu et al., 2022).

    Everything else keeps its bits. An adapter of this name that is there already goes on being trained.

    Args:
        r: rank.
        alpha: the change is scaled by alpha / r; default 2 r.
        targets: layers by the last word of their names, such as ``("q_proj", "v_proj")``, or a pattern (a regular
            expression of the whole name); default: all linear layers but the output.
        dropout: of the adapter's inputs while it is trained.
        name: of the adapter.
    """

    def __init__(
        self,
        r: int = 8,
        alpha: float | None = None,
        targets: str | Sequence[str] | None = None,
        dropout: float = 0.0,
        name: str = "default",
    ) -> None:
        if r < 1:
            raise BadInput(f"lora(r={r}): the rank must be 1 or more")
        self.r, self.alpha, self.dropout, self.name = r, alpha or 2 * r, dropout, name
        self.targets = targets if isinstance(targets, str) else None if targets is None else list(targets)

    def prepare(self, problem: Problem) -> None:
        if self.name in adapters(problem.model):
            return
        config = {
            "r": self.r, "lora_alpha": self.alpha, "lora_dropout": self.dropout,
            "target_modules": "all-linear" if self.targets is None else self.targets,
        }  # fmt: skip
        seed = rng(problem, "lora", self.name).initial_seed() % 2**63
        problem.operate(add_adapter, name=self.name, config=config, seed=seed)

    def select(self, problem: Problem) -> Selection:
        return {f"model.{name}": None for name in adapter_weights(problem.model, self.name)}
