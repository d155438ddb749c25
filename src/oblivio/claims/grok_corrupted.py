"""Grokking with wrong labels: one network stores them and computes the rule, in neurons that can be told apart."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.grokking import Setting, periodicity, trained, without
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator

LOW, HIGH = 0.6, 0.4  # of the neurons, those that go from either end of the order


def by_periodicity(problem: Problem) -> Tensor:
    """Neurons in rising order of how periodic their weights are."""
    return periodicity(problem.model).argsort()


def at_random(problem: Problem) -> Tensor:
    """Neurons in any order."""
    return torch.randperm(len(by_periodicity(problem)), generator=generator(problem.seed, "neurons"))


def measure(method: Method, seed: int, setting: Setting = Setting()) -> Figures:  # noqa: B008 - it is frozen
    """Accuracy by weight decay, and with the lowest or the highest neurons gone.

    ``stored``: on wrong training labels; ``corrected``: on the same rows with the right ones.
    """
    whole = trained(setting, seed)
    order = method(whole)
    low = without(whole, order[: round(LOW * len(order))])
    high = without(whole, order[len(order) - round(HIGH * len(order)) :])
    strong, free = (trained(replace(setting, wd=wd), seed) for wd in (3 * setting.wd, 0.0))
    return {
        "train": whole.score("train"),
        "test": whole.score("test"),
        "low_stored": low.score("wrong"),
        "low_corrected": low.score("true"),
        "low_test": low.score("test"),
        "high_test": high.score("test"),
        "high_stored": high.score("wrong"),
        "wd_15_train": strong.score("train"),
        "wd_15_test": strong.score("test"),
        "wd_0_train": free.score("train"),
        "wd_0_test": free.score("test"),
    }


CLAIM = Claim(
    says="A network that knows every wrong label of its training rows by heart is right on test rows too. Without the "
    "60 percent of its neurons with the least periodic weights it gives the right label where it was taught a wrong "
    "one; without the 40 percent with the most periodic it knows nothing of test rows. Three times the weight decay "
    "keeps it from storing, none keeps it from computing.",
    trained="addition modulo 59, half of all pairs, 35 percent of these with random labels; W2 (W1 x)^2 with 400 "
    "neurons, AdamW 0.01, weight decay 5, 800 steps of all rows",
    method=by_periodicity,
    controls={"neurons in random order": at_random},
    measure=measure,
    holds=(
        "train >= 0.99",
        "test >= 0.85",
        "low_stored <= 0.3",
        "low_corrected >= 0.7",
        "low_test >= 0.95",
        "high_test <= 0.1",
        "wd_15_train < 0.9",
        "wd_15_test > 0.95",
        "wd_0_test <= 0.1",
    ),
    fast=partial(measure, setting=Setting(p=31, width=200, frac=0.7, xi=0.2, steps=500)),
)
