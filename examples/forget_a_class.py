"""Forget a class of handwritten digits, and compare with models that never saw it.

The model is any module of yours; here it is a small network on scikit-learn's 8 x 8 digits.
"""

from __future__ import annotations

import torch
from torch import nn

import oblivio as ob

RECIPE = {"optimiser": "adamw", "lr": 2e-3, "epochs": 20}


def network(seed: int) -> nn.Module:
    """A fresh network: the references are trained from scratch, as the original was."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def main() -> ob.Problem:
    digits = ob.data.load("digits")
    original = ob.learn(network(0), digits.train, RECIPE)

    # 1. What goes and what stays. Held-out rows of all classes show what else was lost.
    threes, rest = ob.data.split(digits.train, "class=3", fields=digits.fields)
    problem = ob.Problem(original, forget=threes, retain=rest, test=digits.test)

    # 2. The standard: the same recipe without the threes, three times, with other seeds.
    references = [ob.learn(network(seed), rest, RECIPE, seed=seed) for seed in (1, 2, 3)]

    # 3. A method. It works on a copy; `original` keeps every bit.
    outcome = ob.forget(problem, "npo", references=references)
    print(f"{outcome.plan}\n")
    print(outcome.table())

    # 4. Other methods, on the same request.
    print()
    for name in ("finetune", "grad_diff", "boundary_unlearning", "salun", "ssd"):
        report = ob.audit(ob.forget(problem, name, references=references), leave_out=["relearning"])
        figures = "   ".join(f"{column} {100 * report.value(column):5.1f}" for column in ("forget", "retain", "kept"))
        print(f"{name:<20} {report.verdict.word:<12} {figures}")
    return problem


if __name__ == "__main__":
    main()
