"""A net with fresh weights beside the model, for as long as it is needed."""

from __future__ import annotations

from oblivio.core.plan import edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.modules.fresh import add_fresh, drop_net


@edit
def fresh(problem: Problem, name: str = "teacher") -> None:
    """Add a net of the model's architecture that has learned nothing, its weights drawn from the problem's seed."""
    problem.operate(add_fresh, name=name, seed=mix(problem.seed, problem.turn, "fresh"))


@edit
def drop(problem: Problem, name: str = "teacher") -> None:
    """Take a net out again."""
    problem.operate(drop_net, name=name)
