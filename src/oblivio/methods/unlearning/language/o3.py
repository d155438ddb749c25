"""O3: for every request an adapter of its own, apart from the earlier ones, and a detector that says when it acts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import common
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem, rng
from oblivio.core.step import Step
from oblivio.core.surgery import Networks
from oblivio.core.term import term
from oblivio.core.where import Selection, Where
from oblivio.how import clip
from oblivio.modules.gated_adapters import (
    PREFIX,
    Detector,
    GatedAdapters,
    add_request,
    common_end,
    gate,
    gated,
    pooled,
    prompts,
)
from oblivio.networks.language.parts import blocks
from oblivio.registry import method
from oblivio.sources.replies import put, refusals, rephrased, rows_of, wrong
from oblivio.sources.tokens import Tokens
from oblivio.terms import fit

SAID = "said instead"  # the source of what is learned in place of the true answers
INSIDE = 1.5  # deviations from the middle within which the weight is 1
SIZE = 256  # prompts of a pass
SCALE = 1000.0  # of scores, so that the SVM sees numbers near 1


@method(
    paper="Gao et al., On Large Language Model Continual Unlearning, ICLR 2025 (first: Practical Unlearning for Large "
    "Language Models, 2024)",
    needs=("forget",),
    tasks=("causal_lm",),
    aliases=("o3_unlearning",),
    cost="epochs over forget with wrong answers, in a LoRA; every later answer costs a second pass through the model",
)
def o3(
    answers: Literal["wrong", "refusals"] = "wrong",
    r: Annotated[int, Field(gt=0)] = 8,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    orthogonality: Annotated[float, Field(ge=0)] = 0.1,
    nu: Annotated[float, Field(gt=0, le=1)] = 0.1,
    held: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
    lr: Annotated[float, Field(gt=0)] = 3e-3,
    epochs: Annotated[float, Field(gt=0)] = 15,
    batch: Annotated[int, Field(gt=0)] = 12,
) -> Stage:
    """Learn other answers to the forgotten questions in an adapter that acts on questions like these alone.

    Equation: min NLL(other answer) + orthogonality (1 / layers) sum over layers, modules and earlier requests k of
    ||A_k A^T||_F^2; served is W x + w(x) (alpha / r) B A x, summed over requests, with w the greatest weight of any
    detector (see ``Detector``). alpha is 2 r. Requests come one after the other: run the plan on the problem that the
    request before left, with its ``turn`` raised and the next rows as ``forget``.
    Needs: forgotten rows alone, with their texts' ``wrong`` answers where there are some, else with answers of other
    rows; or the record ``refusals``. The detector's encoder is the model itself, with its adapters off.
    ``held`` is the share of prompts that the paper's second normal is fitted to; without any it is the first, so wide
    that all prompts count in full.
    Fails: the weights beneath stay, so who has them has everything; a question in words that the detector does not
    know is answered as before. Each request keeps the mean hidden states of its prompts.
    As published the new adapter begins as the earlier one and goes on; there its penalty is greatest at the first step.
    Here earlier adapters stay beside it, frozen, and it begins at zero with an A drawn anew.
    """
    loss = fit(SAID) + orthogonality * overlap()
    learn = Descent(loss, where=newest(), how=clip(1.0), opt=common("adamw", lr), over=SAID, epochs=epochs, batch=batch)
    return request(answers, r, dropout, nu, held) >> learn


@edit(makes=True, writes=False)
def request(problem: Problem, answers: str, r: int, dropout: float, nu: float, held: float) -> None:
    """Add an adapter and a detector that is fitted to the prompts, and make what is to be learned."""
    forget = rows_of(problem, "forget")
    said = [refusals(problem)] * len(forget) if answers == "refusals" else wrong(problem)
    if not isinstance(problem.model, GatedAdapters):
        problem.operate(gate, pad=forget.pad)
    wrap = gated(problem.nets)
    fitted = detector(problem, wrap, forget, nu, held)
    name = f"{PREFIX}{len(wrap.detectors)}"
    layers, rows, width = fitted["features"].shape
    problem.operate(
        add_request, name=name, layers=layers, rows=rows, width=width, marker=len(fitted["marker"]),
        config={"r": r, "lora_alpha": 2 * r, "lora_dropout": dropout, "target_modules": "all-linear"},
        seed=rng(problem, "o3", name).initial_seed() % 2**63,
    )  # fmt: skip
    for key, value in fitted.items():
        wrap.detectors[-1].get_buffer(key).copy_(value)
    pairs = [(forget.prompt(i), answer) for i, others in enumerate(said) for answer in others]
    put(problem, SAID, pairs, forget.pad)


# --- the detector


def detector(problem: Problem, wrap: GatedAdapters, forget: Tokens, nu: float, held: float) -> dict[str, Tensor]:
    """The tensors of a ``Detector``, fitted to the prompts of ``forget`` and their rephrased forms, by their ids."""
    forms = [rows for rows in (forget, rephrased(problem)) if rows is not None]
    asked = [tuple(prompt) for rows in forms for prompt in _asked(rows)]
    asked = list(dict.fromkeys(asked))
    end = common_end(asked) if len(asked) > 1 else []
    marker = torch.tensor(end, dtype=torch.long, device=problem.team.device)
    z = torch.cat([_pooled(wrap, asked[i : i + SIZE], marker) for i in range(0, len(asked), SIZE)])
    problem.count("forget", len(asked))
    place = torch.arange(len(z)) * held
    out = (place + held).floor() > place.floor()
    return {**_levelled(_statistics(z[~out]), z[~out], z[out], nu), "marker": marker}


def _asked(rows: Tokens) -> Iterator[list[int]]:
    """Prompts in the order of their ids; of running texts, which have none, the whole."""
    for i in np.argsort(rows.ids.astype(str), kind="stable").tolist():
        yield rows.prompt(i) or rows.answer(i)


def _pooled(wrap: GatedAdapters, asked: list[tuple[int, ...]], marker: Tensor) -> Tensor:
    rows = Tokens(asked, [0] * len(asked), wrap.pad).to(marker.device)
    ids = rows.batch(torch.arange(len(asked)))["x"]
    return pooled(wrap.states(ids), prompts(ids, marker, wrap.pad))


def _statistics(z: Tensor) -> dict[str, Tensor]:
    """Mean, shrunken precision and unit features of z (n, layers, width), layer by layer."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    n, _, width = z.shape
    mean = z.mean(0)
    found: dict[str, list[Tensor]] = {"directions": [], "shrink": [], "floor": []}
    for rows in (z - mean).unbind(1):
        share = max(float(ledoit_wolf_shrinkage(rows.cpu().numpy(), assume_centered=True)), 1e-3)
        floor = share * (rows.square().sum() / (n * width)).clamp(min=1e-9)
        _, size, along = torch.linalg.svd(rows, full_matrices=False)
        spread = torch.zeros(n, dtype=z.dtype, device=z.device)
        spread[: len(size)] = 1 - floor / ((1 - share) * size.square() / n + floor)
        directions = torch.zeros(n, width, dtype=z.dtype, device=z.device)
        directions[: len(size)] = along
        for name, value in (("directions", directions), ("shrink", spread), ("floor", floor)):
            found[name].append(value)
    features = torch.nn.functional.normalize(z, dim=2).transpose(0, 1)
    return {"mean": mean, "features": features, **{name: torch.stack(each) for name, each in found.items()}}


def _levelled(found: dict[str, Tensor], inside: Tensor, held: Tensor, nu: float) -> dict[str, Tensor]:
    """With a linear one-class SVM on the scores, and where its values lie on fitted and on held-out prompts."""
    from sklearn.svm import OneClassSVM

    layers, rows, width = found["features"].shape
    made = Detector(layers, rows, width, 0).to(inside.device)
    for name, value in found.items():
        made.get_buffer(name).copy_(value)
    scores = made.scores(inside) / SCALE
    svm = OneClassSVM(kernel="linear", nu=nu)
    svm.random_state = 0  # else it draws from NumPy's global state, which is not ours
    svm.fit(scores.cpu().numpy())
    made.coefficients.copy_(torch.tensor(svm.coef_[0].tolist(), dtype=torch.float64) / SCALE)
    made.offset.copy_(torch.tensor(float(svm.intercept_[0])))
    levels = _levels(made.value(inside), made.value(held))
    return {**found, "coefficients": made.coefficients, "offset": made.offset, "levels": levels}


def _levels(fitted: Tensor, held: Tensor) -> Tensor:
    """Two means and a deviation: those of held-out prompts, or such that every fitted one counts in full."""
    if len(held) > 1:
        middle, deviation = held.mean(), held.std()
    else:
        middle, deviation = fitted.mean(), (fitted - fitted.mean()).abs().amax() / INSIDE
    return torch.stack([fitted.mean(), middle, deviation.clamp(min=1e-9)])


# --- the adapter


class newest(Where):
    """The weights of the adapter that was added last."""

    def select(self, problem: Problem) -> Selection:
        mine = f".{PREFIX}{len(gated(problem.nets).detectors) - 1}."
        return {name: None for name, _ in problem.nets.named_parameters() if mine in name}


@term
def overlap(step: Step) -> Tensor:
    """(1 / layers) sum of ||A_k A^T||_F^2 over earlier requests k and modules, A of the newest; 0 for the first."""
    return step.call(_overlap)


def _overlap(nets: Networks) -> Tensor:
    wrap = gated(nets)
    mine = f".lora_A.{PREFIX}{len(wrap.detectors) - 1}."
    weights = dict(wrap.model.named_parameters())
    total = torch.zeros((), device=next(iter(weights.values())).device)
    for name, weight in weights.items():
        for k in range(len(wrap.detectors) - 1) if mine in name else ():
            earlier = weights[name.replace(mine, f".lora_A.{PREFIX}{k}.")]
            total = total + (earlier.detach() @ weight.T).square().sum()
    return total / len(blocks(wrap.model))
