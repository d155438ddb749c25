"""Training a model from the beginning, the same way for an original and for every reference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from oblivio.core import opt
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.run import Run, Watch
from oblivio.core.source import Source
from oblivio.core.task import Task
from oblivio.core.team import ALONE, Team
from oblivio.jobs.augment import CropFlip
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.networks._own import imported
from oblivio.terms.fit import fit


@dataclass(frozen=True)
class Trained:
    """A trained module, the seconds it took and the rows it was shown; None where a user's function kept no count."""

    module: nn.Module
    seconds: float
    rows: int | None


def train(
    recipe: Recipe,
    network: Network,
    source: Source,
    seed: int,
    folder: Path | None = None,
    *,
    task: Task | str,
    team: Team = ALONE,
    watch: Sequence[Watch] = (),
) -> Trained:
    """Build ``network`` and train it on ``source``.

    Args:
        recipe: how; see ``Recipe``.
        network: what; its preprocessing is fitted to ``source``.
        source: the rows.
        seed: of weights, order and augmentation.
        folder: where checkpoints lie; a training that was killed goes on from there. None keeps none.
        task: gives the loss.
        team: the processes that share the work.
        watch: called after every step, as ``Run`` does.

    Raises:
        BadInput: a recipe that cannot be imported, or returns another module than ``network``.
    """
    if recipe.train is not None:
        return _own(recipe.train, network, source, seed, folder)
    return fitted(network.build(source, seed), recipe, source, seed, folder, task=task, team=team, watch=watch)


def fitted(
    module: nn.Module,
    recipe: Recipe,
    source: Source,
    seed: int,
    folder: Path | None = None,
    *,
    task: Task | str | None,
    team: Team = ALONE,
    watch: Sequence[Watch] = (),
) -> Trained:
    """Train ``module`` itself, from the weights it has, by a recipe of settings; see ``train``."""
    rows = source if recipe.augmentation == "none" else CropFlip(source)
    problem = Problem(module, task=task, seed=seed, team=team, train=rows)
    run = Run(plan(recipe), problem, folder, watch=watch)
    (run if folder is None else run.resume()).go()
    return Trained(problem.model, run.seconds, forwarded(problem).get("train", 0))


def forwarded(problem: Problem) -> dict[str, int]:
    """Rows forwarded by source, over all processes."""
    counts = torch.tensor(list(problem.passes.values()), device=problem.team.device)
    problem.team.total([counts])
    return dict(zip(problem.passes, counts.tolist(), strict=True))


def plan(recipe: Recipe) -> Descent:
    """The descent on source ``train`` that a recipe of settings means."""
    schedule = None if recipe.schedule == "constant" else getattr(opt, recipe.schedule)
    if recipe.optimiser == "sgd":
        optimiser = opt.sgd(recipe.lr, recipe.momentum, recipe.wd, schedule)
    else:
        optimiser = getattr(opt, recipe.optimiser)(recipe.lr, wd=recipe.wd, schedule=schedule)
    return Descent(fit("train"), opt=optimiser, epochs=recipe.epochs, batch=recipe.batch)


def _own(reference: str, network: Network, source: Source, seed: int, folder: Path | None) -> Trained:
    start = time.monotonic()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    module = imported(reference)(source, seed, folder)
    if not isinstance(module, nn.Module):
        raise BadInput(f"recipe {reference} returned a {type(module).__name__}; a torch.nn.Module is needed")
    _check_fits(reference, module, network)
    return Trained(module, time.monotonic() - start, None)


def _check_fits(reference: str, module: nn.Module, network: Network) -> None:
    """What a user's recipe returns must be what ``model.name`` builds, or it could not be loaded again."""
    wanted = {n: t.shape for n, t in network.architecture.build().state_dict().items()}
    found = {n: t.shape for n, t in module.state_dict().items()}
    if wanted != found:
        differ = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        raise BadInput(
            f"recipe {reference} returned another network than {network.architecture.name}: they differ in "
            f"{', '.join(differ[:3])}"
        )
