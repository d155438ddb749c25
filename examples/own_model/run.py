"""The same request in Python, on the shop's own Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from shop import Customers, customers, fit
from torch import nn
from torch.utils.data import Subset

import oblivio as ob

HERE = Path(__file__).parent


def trained(rows: Customers, places: Sequence[int], seed: int) -> nn.Module:
    x, y = zip(*(rows[i] for i in places), strict=True)
    return fit(torch.stack(x), torch.stack(y), seed)


def main() -> ob.Problem:
    known, held_out = customers()
    asked = set((HERE / "gone.txt").read_text().split())
    # The last 72 rows are not learned: npo reads from them when to stop.
    learned, valid = range(648), range(648, 720)
    gone = [i for i in learned if known.ids[i] in asked]
    kept = [i for i in learned if known.ids[i] not in asked]

    sources = {"forget": gone, "retain": kept, "valid": valid}
    problem = ob.Problem(
        trained(known, learned, seed=0),
        task="binary",
        test=held_out,
        **{name: Subset(known, places) for name, places in sources.items()},
    )
    references = [trained(known, kept, seed) for seed in (1, 2, 3)]

    outcome = ob.forget(problem, "npo", references=references, lr=0.01, epochs=10)
    print(f"{len(gone)} of {len(learned)} customers must go\n")
    print(outcome.table())
    return problem


if __name__ == "__main__":
    main()
