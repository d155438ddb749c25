"""Start again from random weights."""

from __future__ import annotations

import torch

from oblivio.core.plan import edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.modules.fitted import refit
from oblivio.modules.fresh import redraw


@edit
def reset(problem: Problem) -> None:
    """Draw all weights of the model anew, by each module's own ``reset_parameters``, from the problem's seed.

    What is fitted to rows (``modules.fitted``) is fitted to the retained ones. Raises BadInput for a module that owns
    weights and has no ``reset_parameters``.
    """
    torch.default_generator.manual_seed(mix(problem.seed, problem.turn, "reset"))
    redraw(problem.model)
    refit(problem.model, problem.source("retain"))
