"""Forget a group of patients in a regression: those with a body mass index above 33.

The rows are scikit-learn's diabetes set. What is fitted to data (the mean and spread of each column) is part of the
model, so that a reference fits it anew, to the rows that it may know.
"""

from __future__ import annotations

import torch
from torch import nn

import oblivio as ob

RECIPE = {"optimiser": "adam", "lr": 5e-3, "epochs": 60, "batch": 32}
Rows = dict[str, torch.Tensor]


class Scaled(nn.Module):
    """Columns brought to mean 0 and spread 1, by what `rows` say."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.register_buffer("mean", rows["x"].mean(0))
        self.register_buffer("spread", rows["x"].std(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.spread


def network(rows: Rows, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(Scaled(rows), nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


def load() -> tuple[Rows, Rows]:
    """Training and test rows; the target is the progression, in units of 75 points around 150."""
    table = ob.data.load("diabetes")

    def rows(source: object) -> Rows:
        batch = next(source.batches(len(source)))
        return {"x": batch["x"], "y": (batch["y"] - 150) / 75, "id": torch.from_numpy(source.ids)}

    return rows(table.train), rows(table.test)


def some(rows: Rows, which: torch.Tensor) -> Rows:
    return {name: column[which] for name, column in rows.items()}


def main() -> ob.Problem:
    train, test = load()
    gone = train["x"][:, 2] > 33  # the third column is the body mass index
    forget, retain = some(train, gone), some(train, ~gone)

    original = ob.learn(network(train, 0), train, RECIPE)
    references = [ob.learn(network(retain, seed), retain, RECIPE, seed=seed) for seed in (1, 2, 3)]
    problem = ob.Problem(original, forget=forget, retain=retain, test=test)  # floating targets: a regression

    print(f"{gone.sum()} of {len(gone)} patients must go\n")
    settings = {"gamma": 0.5, "lr": 0.02, "epochs": 5, "batch": 64}
    outcome = ob.forget(problem, "grad_diff", references=references, **settings)
    print(outcome.table(), "\n")
    for name, settings in {"finetune": {"lr": 0.01, "epochs": 5}, "npo": {"lr": 0.01, "epochs": 10}}.items():
        report = ob.forget(problem, name, **settings).report
        figures = ((column, report.value(column)) for column in ("forget", "retain", "test"))
        print(f"{name:<12}", "   ".join(f"{column} {value:.3f}" for column, value in figures))
    print(
        "\nThe aim is the error of the retrained models on the forgotten rows. It is above the original's: they never"
    )
    print("saw patients like these. Far below it, a model still knows them; far above it, a model is damaged.")
    return problem


if __name__ == "__main__":
    main()
