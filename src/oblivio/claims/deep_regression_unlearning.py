"""Deep regression unlearning: the blindspot brings predictions of forgotten values near those of a retrained model."""

from __future__ import annotations

import numpy as np
import torch

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import Case, digits, nothing
from oblivio.core.problem import Problem
from oblivio.data.columns import column
from oblivio.jobs.cache import trained
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.jobs.references import seed_of
from oblivio.networks import Architecture
from oblivio.sources import Tensors
from oblivio.tasks.regression import Regression

GONE = (0, 1, 2)
NETWORK = Network(Architecture("mlp", (1, 8, 8), 1, {"hidden": [128, 64]}))
RECIPE = Recipe(optimiser="adam", lr=1e-3, schedule="constant", epochs=60, batch=64)
EPOCHS, BATCH = 5, 16


def valued(seed: int) -> Case:
    """Digits as numbers from 0 to 9, of which 0, 1 and 2 go; the source ``kept`` holds the test rows of the others."""
    rows, test = (
        Tensors({"x": column(part, "x"), "y": column(part, "y").astype(np.float32)}, ids=part.ids)
        for part in (digits().train, digits().test)
    )
    goes = np.isin(column(rows, "y"), GONE)
    forget, retain = rows.take(goes), rows.take(~goes)
    kept = test.take(~np.isin(column(test, "y"), GONE))
    first, second = (
        Problem(
            trained(RECIPE, NETWORK, of, number, task="regression").module,
            task=Regression(), seed=seed, forget=forget, retain=retain, test=test, kept=kept,
        )
        for of, number in ((rows, seed), (retain, seed_of(seed, 0)))
    )  # fmt: skip
    return Case(first, second)


def predictions(problem: Problem, on: str = "forget") -> torch.Tensor:
    """Of all rows, shape (rows,)."""
    return problem.predict(on).flatten()


def wasserstein(a: torch.Tensor, b: torch.Tensor) -> float:
    """W1 of two samples of the same size: the mean distance of their values in order."""
    return float((a.sort().values - b.sort().values).abs().double().mean())


def error(problem: Problem) -> float:
    """Mean absolute error on test rows of the values that stay."""
    y = torch.from_numpy(column(problem.source("kept"), "y"))
    return float((predictions(problem, "kept") - y).abs().double().mean())


def measure(method: Method, seed: int) -> Figures:
    """W1 of the predictions on forgotten rows to a retrained model's, and the error on the others."""
    case = valued(seed)
    settings = {"epochs": EPOCHS, "blindspot_epochs": EPOCHS, "batch": BATCH}
    done = {
        "before": case.start,
        "retrained": case.retrained,
        "blindspot": case.after(method(**settings)),
        "gaussian": case.after(methods.deep_regression_unlearning(variant="gaussian", **settings)),
        "finetune": case.after(methods.finetune(lr=0.001, epochs=EPOCHS, batch=BATCH)),
    }
    figures = {}
    for name, problem in done.items():
        figures[f"{name}_w1"] = wasserstein(predictions(problem), predictions(case.retrained))
        figures[f"{name}_error"] = error(problem)
    return figures


CLAIM = Claim(
    says="Taught by a network that learned the retained rows for a short while, a regressor predicts forgotten values "
    "much as a retrained one does (W1), closer than after refitting them to random targets or after fine-tuning for as "
    "many epochs, and the others as well as a retrained one.",
    trained="digits as numbers; the values 0, 1 and 2 go",
    method=methods.deep_regression_unlearning,
    controls={"the method as a no-op": nothing},
    measure=measure,
    holds=(
        "blindspot_w1 <= 0.3 * before_w1",
        "blindspot_w1 < gaussian_w1",
        "blindspot_w1 < finetune_w1",
        "abs(blindspot_error - retrained_error) <= 0.05",
    ),
    changed=(
        Changed("training of the original", "not said", "60 epochs of Adam at 1e-3, squared error",
                "as the other small models"),
        Changed("rows a step", "not said", "16",
                "chosen on other seeds, after a first record with 64 had failed: there are too few steps in 5 epochs "
                "of 1,200 rows, and the error on the others ends up to 0.09 above a retrained model's"),
    ),
)  # fmt: skip
