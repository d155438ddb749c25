"""Start again from random weights."""

from __future__ import annotations

import torch

from oblivio.core.errors import BadInput
from oblivio.core.plan import edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.modules.fitted import refit


@edit
def reset(problem: Problem) -> None:
    """Draw all weights of the model anew, by each module's own ``reset_parameters``, from the problem's seed.

    What is fitted to rows (``modules.fitted``) is fitted to the retained ones. Raises BadInput for a module that owns
    weights and has no ``reset_parameters``.
    """
    torch.default_generator.manual_seed(mix(problem.seed, problem.turn, "reset"))
    for name, module in problem.model.named_modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        elif any(True for _ in module.parameters(recurse=False)):
            raise BadInput(
                f"the module {name or 'model'} ({type(module).__name__}) has weights and no "
                "reset_parameters(); add one, or give references trained by your own recipe"
            )
    refit(problem.model, problem.source("retain"))
