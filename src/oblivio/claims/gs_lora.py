"""GS-LoRA: three classes go one after another by low-rank changes, and the group lasso leaves all but one block."""

from __future__ import annotations

from functools import cache
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import digits, nothing
from oblivio.core.descent import Descent
from oblivio.core.opt import adam, adamw, cosine
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.data.columns import column
from oblivio.jobs.method import apply
from oblivio.methods.unlearning.adapters.gs_lora import above
from oblivio.terms import fit

REQUESTS = (1, 4, 7)
SETTINGS: dict[str, Any] = {"layers": "blocks.*", "replay": 0.2, "alpha": 0.01, "beta": 0.3, "lr": 0.01, "epochs": 100}


class FeedForward(nn.Module):
    """Two linear layers whose result is added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape in is shape out."""
        out: Tensor = x + self.fc2(self.fc1(self.norm(x)).relu())
        return out


class Residual(nn.Sequential):
    """A linear layer, four blocks, and a head on 8x8 digits."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.flatten, self.stem = nn.Flatten(), nn.Linear(64, width)
        self.blocks = nn.Sequential(*(FeedForward(width) for _ in range(4)))
        self.head = nn.Linear(width, 10)


def sequence(seed: int, model: nn.Module, gone: int) -> Problem:
    """Request number ``gone``: its class goes, those before it are gone; ``kept`` are test rows of the rest."""
    rows, test = digits().train, digits().test
    return Problem(
        model, task="classification", seed=seed, forget=of(rows, REQUESTS[gone : gone + 1]),
        retain=of(rows, REQUESTS[: gone + 1], False), earlier=of(rows, REQUESTS[: gone + 1]),
        kept=of(test, REQUESTS[: gone + 1], False),
    )  # fmt: skip


def of(rows: Source, classes: tuple[int, ...], inside: bool = True) -> Source:
    """The rows of these classes, or those of the others."""
    return rows.take(np.isin(column(rows, "y"), classes) == inside)


@cache
def trained(seed: int, without: int = 0) -> nn.Module:
    """The network after 30 epochs on the rows of all classes but the first ``without`` that go."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, without, "weights"))
        model = Residual()
    rows = of(digits().train, REQUESTS[:without], False)
    plan = Descent(fit("train"), opt=adam(1e-3), epochs=30)
    return Run(plan, Problem(model, task="classification", seed=seed, train=rows)).go().model.eval()


def worst(problem: Problem) -> float:
    """The highest accuracy on training rows of a class that has gone."""
    right = problem.predict("earlier").argmax(1)
    labels = torch.from_numpy(column(problem.source("earlier"), "y"))
    return max(float((right == labels)[labels == c].float().mean()) for c in labels.unique())


def whole() -> Stage:
    """The same without low rank and lasso: all weights, at a rate that is usual for them."""
    loss = fit("retain") + 0.3 * above(fit("forget"), 10.0)
    return Descent(loss, opt=adamw(1e-3, schedule=cosine), over="forget", epochs=100, batch=48)


def served(plan: Stage, seed: int) -> list[Problem]:
    """The problem after each of the three requests."""
    model, done = trained(seed), []
    for gone in range(len(REQUESTS)):
        done.append(apply(plan, sequence(seed, model, gone))[0])
        model = done[-1].model
    return done


@cache
def tuned(seed: int) -> list[Problem]:
    """After each request, by ordinary fine-tuning of all weights on the same loss."""
    return served(whole(), seed)


def norms(before: nn.Module, after: nn.Module) -> list[float]:
    """How far the weights of each block moved."""
    old, new = before.state_dict(), after.state_dict()
    moved = {n: float((new[n] - old[n]).norm()) for n in old if n.startswith("blocks")}
    return [sum(v**2 for n, v in moved.items() if n.startswith(f"blocks.{i}.")) ** 0.5 for i in range(4)]


def spread(before: nn.Module, after: nn.Module) -> float:
    """The median of the blocks' moves over the largest: 1 where all move alike, 0 where most stay."""
    moved = norms(before, after)
    return median(moved) / max(*moved, 1e-9)


def fast(method: Method, seed: int) -> Figures:
    """The first request alone."""
    first = sequence(seed, trained(seed), 0)
    done = apply(method(**SETTINGS), first)[0]
    return {"gone_1": worst(done), "others_1": done.score("kept"), "spread": spread(first.model, done.model)}


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on classes that have gone and on test rows of the rest, after each request; how blocks moved."""
    start, first = trained(seed), sequence(seed, trained(seed), 0)
    done, every = served(method(**SETTINGS), seed), tuned(seed)
    plain, strict = (apply(method(**SETTINGS | {"alpha": a}), first)[0] for a in (0.0, 0.03))
    weak = apply(method(**SETTINGS | {"alpha": 0.03, "beta": 0.15}), first)[0]
    protos = apply(method(**SETTINGS, variant="prototypes"), first)[0]
    original = [sequence(seed, start, i).score("kept") for i in range(3)]
    kept = [p.score("kept") for p in done]
    return {
        **{f"gone_{i + 1}": worst(p) for i, p in enumerate(done)},
        **{f"others_{i + 1}": score for i, score in enumerate(kept)},
        "lost": max(was - now for was, now in zip(original, kept, strict=True)),
        "retrained_others": sequence(seed, trained(seed, 3), 2).score("kept"),
        "original_others": original[-1],
        "whole_gone": worst(every[-1]),
        "whole_others": every[-1].score("kept"),
        "spread": spread(start, done[0].model),
        "spread_plain": spread(start, plain.model),
        "plain_gone": worst(plain),
        "plain_others": plain.score("kept"),
        "strict_gone": worst(strict),
        "strict_moved": max(norms(start, strict.model)),
        "weak_gone": worst(weak),
        "weak_moved": max(norms(start, weak.model)),
        "prototypes_gone": worst(protos),
        "prototypes_others": protos.score("kept"),
    }


STRICT = (
    "The lasso and the pull to forget race from zero: with beta 0.3 blocks of one seed of three get away from a lasso "
    "of 0.03. With the card's beta of 0.15, half the pull, none does (weak_gone, weak_moved)"
)
CLAIM = Claim(
    says="Three classes go one after another, none comes back, and the others stay. With the group lasso one block "
    "moves at least 10 times as far as the median one, without it less than 3 times; with three times the lasso "
    "nothing moves and nothing is forgotten.",
    trained="digits, a residual network of 4 blocks; classes 1, 4 and 7 go in turn",
    method=methods.gs_lora,
    controls={"the method as a no-op": nothing},
    measure=measure,
    fast=fast,
    tolerance=0.05,
    holds=(
        "gone_1 <= 0.05",
        "gone_2 <= 0.05",
        "gone_3 <= 0.05",
        "lost <= 0.03",
        "spread <= 0.1",
        "spread_plain > 0.3333",
        "strict_gone >= 0.95",
        "strict_moved <= 0.05",
    ),
    because={"strict_gone >= 0.95": STRICT},
    changed=(
        Changed("beta on the first task", "0.15", "0.3, as the card has it for later tasks",
                "on other seeds alpha 0.01 left every block at zero with 0.15 and 0.2, so that nothing was forgotten"),
        Changed("how unevenly blocks move", "largest over median, at least 10 and below 3",
                "median over largest, at most 0.1 and above 0.3333", "a median of zero has no ratio to average"),
    ),
)  # fmt: skip
