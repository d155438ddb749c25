"""SAUCE: the features of a concept, found by a sparse autoencoder, are turned down; the weights stay as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput, nearest
from oblivio.core.opt import adam
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem, rng
from oblivio.core.seeds import mix
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.modules.sparse_autoencoder import host_autoencoder, hosted, listening
from oblivio.registry import method
from oblivio.sources.tokens import IGNORED

MOST = 65536  # activations that an autoencoder is trained on
SIZE, AT_ONCE = 256, 4096  # rows of a pass, and activations that are encoded at once: each has many features


@term
def unexplained(step: Step, on: On) -> Tensor:
    """|x - x^|^2 of every activation; of sparsity the autoencoder itself takes care."""
    x = step.batch(on)["activation"]
    return step.call(lambda nets: hosted(nets).autoencoder.error(x))


def passed(problem: Problem, on: On, layer: str) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Of each batch what enters a layer, (rows, places, width), and which places count, (rows, places)."""
    source, found = problem.source(on), list[Tensor]()
    problem.count(source.name, len(source))
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(problem.evaluating())
        stack.enter_context(listening(problem.nets.get_submodule(layer), found.append))
        for batch in source.batches(SIZE):
            found.clear()
            problem.task.forward(problem.nets, "model", batch)
            x = found[-1].reshape(len(batch), -1, found[-1].shape[-1])
            yield batch, x, counted(batch, x)


def counted(batch: Batch, x: Tensor) -> Tensor:
    """All places; where each has a target of its own, those from which a target that counts is predicted."""
    y = batch["y"] if "y" in batch.source.columns else batch.rows
    if y.shape != x.shape[:2]:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return (y != IGNORED).roll(-1, 1) & (torch.arange(y.shape[1], device=y.device) < y.shape[1] - 1)


@edit(makes=True, writes=False)
def collect(problem: Problem, layer: str, ratio: int, active: int) -> None:
    """Make the source ``activations`` of what enters the layer, and put an autoencoder there."""
    sources = [problem.source("forget"), problem.source("retain")]
    name = layer_of(problem, layer)
    rows, g = sum(map(len, sources)), rng(problem, "activations")
    parts = []
    for on in ("forget", "retain"):
        for batch, x, counts in passed(problem, on, name):
            every = x[counts].float()
            share = -(-MOST * len(batch) // rows)
            drawn = torch.randperm(len(every), generator=g, device=every.device)[:share]
            parts.append(every[drawn.sort().values])
    found = torch.cat(parts)
    problem.make("activations", activation=found)
    seed, width = mix(problem.seed, problem.turn, "autoencoder"), found.shape[1]
    problem.operate(host_autoencoder, layer=name.partition(".")[2], width=width, size=ratio * width, active=active,
                    seed=seed % 2**63)  # fmt: skip
    hosted(problem.nets).autoencoder.fit(found)


def layer_of(problem: Problem, layer: str) -> str:
    """The full name of a layer of the model. Raises BadInput where there is none of this name."""
    name = problem.features if layer == "features" else f"model.{layer}"
    if name not in dict(problem.nets.named_modules()):
        raise BadInput(f"the model has no layer {layer!r}{nearest(layer, dict(problem.model.named_modules()))}")
    return name


def activity(problem: Problem, on: On, concepts: str = "") -> dict[str, Tensor]:
    """The mean of every feature over the places of each concept's rows, shape (features,)."""
    wrap, totals, counts = hosted(problem.nets), dict[str, Tensor](), dict[str, int]()
    for batch, x, places in passed(problem, on, f"model.model.{wrap.layer}"):
        labels = batch[concepts] if concepts else torch.zeros(len(batch), dtype=torch.long)
        for value in labels.unique():
            mine = (labels == value).to(places.device)[:, None] & places
            key, chosen = str(value.item()), x[mine].float()
            for part in chosen.split(AT_ONCE):
                totals[key] = totals.get(key, 0) + wrap.autoencoder.encode(part).sum(0, dtype=torch.float64)
            counts[key] = counts.get(key, 0) + len(chosen)
    return {key: (total / max(counts[key], 1)).float() for key, total in totals.items()}


@edit(writes=False)
def choose(problem: Problem, K: int, c: float, concepts: str) -> None:
    """Turn down the features that are active on each concept's rows and least so on the retained ones."""
    wrap, (others,) = hosted(problem.nets), activity(problem, "retain").values()
    for mine in activity(problem, "forget", concepts).values():
        apart = (mine - others).where(mine > 0, -torch.inf)
        best = apart.topk(min(K, len(apart)))
        wrap.factors[best.indices[best.values.isfinite()]] = -c


@method(
    paper="Geng et al., SAUCE: Selective Concept Unlearning in Vision-Language Models with Sparse Autoencoders, 2025",
    needs=("forget", "retain"),
    tasks=("classification", "causal_lm"),
    serves=("class",),
    refusal="it suppresses what a concept's rows have in common; single rows share their features with others",
    labels=False,
    aliases=("sae_suppression",),
    cost="two passes over forget and retain; the autoencoder is trained on activations, without passes of the model",
)
def sauce(
    layer: str = "features",
    ratio: Annotated[int, Field(gt=0)] = 16,
    active: Annotated[int, Field(gt=0)] = 30,
    K: Annotated[int, Field(gt=0)] = 32,
    c: Annotated[float, Field(ge=0)] = 1.0,
    concepts: str = "",
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    steps: Annotated[int, Field(gt=0)] = 500,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Turn down the few features of one layer that are specific to what is to be forgotten; no weight changes.

    Equation: z = the ``active`` largest of relu(W_e (x - b_d) + b_e) in R^(ratio d), fitted by min |x - W_d z - b_d|^2
    with unit columns; x + W_d (z' - z) enters the layer, z'_j = -c z_j for the ``K`` features with the largest
    A_j - B_j, A_j > 0, and z'_j = z_j for the others. A and B are mean activities on forgotten and retained rows.
    ``layer`` is the one whose input is meant: a dotted name, such as ``model.layers.2`` in a Llama, or ``features``,
    the last linear layer. With ``concepts``, a column of the forgotten rows, ``K`` features are chosen for each of its
    values. On language models the places count from which answers are predicted; all places are suppressed.
    Needs: retained rows beside the forgotten ones, no targets. The paper's settings are not confirmed.
    Fails: nothing is deleted: the weights, and a probe before the layer, still know the concept. Features that the
    concept shares with others cost these; with a small ``ratio`` there are more of them.
    """
    train = Descent(unexplained("activations"), "model.autoencoder.*", opt=adam(lr), steps=steps, batch=batch)
    return collect(layer, ratio, active) >> train >> choose(K, c, concepts)
