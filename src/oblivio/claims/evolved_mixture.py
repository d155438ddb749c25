"""Evolved mixture: in a stream without boundaries about as many experts are begun as there are tasks."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import torch
from torch import Tensor

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.continual import SPLIT, course, split_digits
from oblivio.claims.lines import ends, lines, naive
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.data.streams.experience import Experience
from oblivio.methods.continual.structure.evolved_mixture import mmd
from oblivio.modules.fresh import redraw
from oblivio.modules.mixture import Mixture

ROWS, M = 100, 100  # of a test of the signal, of the memory
ER = {"buffer": M, "replay": 10, "lr": 0.05, "batch": 10, "epochs": 20}
SETTINGS = {"M": M, "batch": 10, "epochs": 20}


def one(**settings: Any) -> Stage:
    """The method with a threshold that nothing reaches: one expert learns everything from the buffer."""
    return methods.evolved_mixture(threshold=1e9, **settings)


@edit
def untrained(problem: Problem) -> None:
    """After the last experience autoencoders that know nothing decide which expert answers."""
    if problem.turn == 5 and isinstance(problem.model, Mixture):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(problem.seed)
            for component in problem.model.components:
                redraw(component.vae)  # type: ignore[arg-type]


def misrouted(**settings: Any) -> Stage:
    """The method, its experts chosen at random."""
    return methods.evolved_mixture(**settings) >> untrained()


def rows_of(experience: Experience) -> Tensor:
    """All its inputs, one a line."""
    x: Tensor = experience.rows.batch(torch.arange(len(experience.rows)))["x"]
    return x.flatten(1)


def hsic(rows: Tensor, others: Tensor) -> float:
    """Of rows paired with the nearest others: tr(K H L H) / (n - 1)^2, with the kernels of ``mmd``."""
    near = others[torch.cdist(rows, others).argmin(1)]
    h = torch.pdist(rows).square().median()
    k, v = (torch.exp(-torch.cdist(a, a).square() / h) for a in (rows, near))
    centred = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
    return float((centred * v).sum() / (len(rows) - 1) ** 2)


@cache
def signals(seed: int) -> Figures:
    """Of rows of one task to others of it and to rows of the next, as real rows show it: mean over the five tasks."""
    stream, found = split_digits("class", seed), []
    for task in range(5):
        own, after = rows_of(stream.train[task]), rows_of(stream.train[(task + 1) % 5])
        rows, same, other = own[:ROWS], own[ROWS : 2 * ROWS], after[:ROWS]
        found.append((mmd(rows, same), mmd(rows, other), hsic(rows, same), hsic(rows, other)))
    same_mmd, other_mmd, same_hsic, other_hsic = torch.tensor(found).mean(0).tolist()
    return {"mmd_apart": other_mmd / same_mmd, "hsic_apart": same_hsic / other_hsic}


@torch.no_grad()
def separates(model: Any, tests: tuple[Experience, ...], seed: int) -> float:
    """By what factor test rows of other tasks are farther from what an expert generates than those of its own.

    The least over all experts and other tasks; 0 where there is one expert.
    """
    if not isinstance(model, Mixture) or len(model.components) < 2:
        return 0.0
    rows = [rows_of(each)[:ROWS] for each in tests]
    homes = [Counter(model.chosen(each).tolist()).most_common(1)[0][0] for each in rows]
    code = torch.randn(ROWS, model.newest.vae.latent, generator=torch.Generator().manual_seed(seed))
    least = float("inf")
    for j, component in enumerate(model.components):
        vae: Any = component.vae
        far = [mmd(vae.scaled(each), vae.decoder(code)) for each in rows]
        own, other = ([f for f, home in zip(far, homes, strict=True) if (home == j) is same] for same in (True, False))
        least = min([least, *(min(other) / most for most in [max(own, default=0.0)] if most and other)])
    return least if least < float("inf") else 0.0


def measure(method: Method, seed: int) -> Figures:
    """Accuracy beside that of the lines, the experts, and how well the signal tells their rows from others."""
    stream = split_digits("class", seed)
    done = course(method(**SETTINGS), stream, seed)
    model = done.learner.model.eval()
    return {
        "acc": done.acc,
        "experts": float(len(model.components) if isinstance(model, Mixture) else 1),
        "separates": separates(model, stream.test, seed),
        "er": ends(methods.er(**ER), "class", seed).acc,
        "naive": lines(("class",), seed)["naive_class"],
        **signals(seed),
    }


CLAIM = Claim(
    says="Of a class-incremental stream of five tasks without boundaries about as many experts are begun; without task "
    "ids they are as accurate as experience replay with as many stored rows, and the signal tells the rows of "
    "an expert from those of other tasks.",
    trained=f"{SPLIT}; 20 epochs each, batch 10, {M} stored rows; VAEs 64-128-8",
    method=methods.evolved_mixture,
    controls={
        "one expert alone": one,
        "experts chosen by autoencoders that were not trained": misrouted,
        "naive training": naive,
    },
    measure=measure,
    holds=["acc >= er - 0.05", "acc >= naive + 0.3"],
    always=["4 <= experts <= 6", "separates >= 1.5", "mmd_apart >= 1.5"],
    because={
        "separates >= 1.5": "Where one boundary of four is not noticed (seeds 0 and 1, and 2 of 11 orders of seeds "
        "from 100 on) an expert learns two tasks, and what it generates is no nearer to either than to others; with "
        "an expert a task the factor is 3.7 (seed 2). It is not the threshold alone: with 0.08 seed 107 misses it too",
    },
    changed=[
        Changed("signal", "self-HSIC(B, B) less HSIC paired with the nearest generated rows",
                "squared MMD to the generated rows",
                "paired HSIC with what a VAE generates told tasks apart less surely on seeds 100 and 101; "
                "the figures of both on real rows are measured"),
        Changed("threshold", "on min_j D_j", "on D_j less what it was on the rows that j was trained on, for every j",
                "a VAE that has only begun is far from all rows, those it learns too"),
        Changed("earlier snapshot", "of the current expert", "as it was two tests ago, and what is frozen is this one",
                "at the last test it may have learned some rows of the next task"),
    ],
)  # fmt: skip
