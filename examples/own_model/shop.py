"""Code of a shop, as it may stand in your own repository: rows, a network and how it is trained. No oblivio in it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

HERE = Path(__file__).parent
INPUTS = ("age", "visits", "basket", "days")


class Customers(Dataset[tuple[Tensor, Tensor]]):
    """One row a customer: what is known of them, and whether they left. ``ids`` names the rows."""

    def __init__(self, file: Path) -> None:
        with open(file, newline="") as lines:
            self.rows = list(csv.DictReader(lines))
        self.ids = [row["customer"] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        row = self.rows[i]
        return torch.tensor([float(row[name]) for name in INPUTS]), torch.tensor(int(row["left"]))


def customers() -> tuple[Customers, Customers]:
    """The rows to learn and those to test on."""
    return Customers(HERE / "customers.csv"), Customers(HERE / "held_out.csv")


class Network(nn.Module):
    """Inputs are scaled by what the training rows say; the result is one logit."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(INPUTS)))
        self.register_buffer("spread", torch.ones(len(INPUTS)))
        self.first = nn.Linear(len(INPUTS), hidden)
        self.second = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.spread
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


def fit(x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """How the shop trains its model: Adam on all rows at once."""
    torch.manual_seed(seed)
    network = Network()
    network.mean.copy_(x.mean(0))
    network.spread.copy_(x.std(0))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(network(x).flatten(), y.float()).backward()
        optimiser.step()
    return network.eval()


def train(source: Any, seed: int, folder: Path | None) -> nn.Module:
    """The same as a recipe of a job: `source.batches(n)` gives dicts with `x` and `y`, in order."""
    batches = list(source.batches(256))
    x, y = (torch.cat([batch[name] for batch in batches]) for name in ("x", "y"))
    return fit(x, y, seed)
