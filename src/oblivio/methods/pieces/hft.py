"""HFT: a piece that trains half of the matrices of every block, another half at every turn, and holds the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem, rng
from oblivio.core.where import Selection, Where
from oblivio.networks.language.parts import blocks
from oblivio.registry import method

SLICED = {"c_attn": -1, "in_proj_weight": 0, "in_proj_bias": 0}  # equal thirds of query, key and value; along which
FUSED = re.compile(r"\.(query_key_value|qkv_proj|qkv|Wqkv|W_pack)\.")  # parts that lie otherwise in every family


@method(
    kind="piece",
    paper="Hui et al., HFT: Half Fine-Tuning for Large Language Models, 2024",
    needs=("new|retain|train",),
    on="finetune",
    tasks=("causal_lm", "vision_language"),
    aliases=("half_fine_tuning",),
    cost="half of the optimiser's state and of the weights' gradients",
)
def hft() -> Callable[[Stage], Stage]:
    """Of the matrices in every block only a random half is trained; which one is drawn anew at every turn.

    Equation: of a block's attention matrices (query, key, value, output) and of its norms half are held; of an odd
    number of matrices, as the three of a gated feed-forward network, one more in a random half of the blocks than in
    the others. Embeddings, the last norm and the head are trained. A bias goes with its matrix, adapters are trained.
    A matrix that holds query, key and value one behind the other (GPT-2, ``nn.MultiheadAttention``) counts as three.
    Needs: a network with blocks, of any kind; one whose query, key and value lie in one matrix in another order is
    refused.
    Fails: what half of the weights cannot learn as fast takes more steps.
    """
    return lambda plan: plan.but(where=half())


@dataclass(frozen=True)
class Unit:
    """What is held or trained as one: weights by name, or the ``part``-th of three slices of them."""

    names: tuple[str, ...]
    part: int | None = None


class half(Where):
    """Half of the matrices and norms of each block, drawn by the problem's seed and turn, and all outside of them."""

    def select(self, problem: Problem) -> Selection:
        held: dict[str, list[int | None]] = {}
        for unit in draw(units(problem), rng(problem, "hft")):
            for name in unit.names:
                held.setdefault(name, []).append(unit.part)
        weights = problem.weights("model.*")
        masks = {n: _mask(n, weights[n], parts) for n, parts in held.items()}
        return {n: masks.get(n) for n in weights if n not in masks or bool(masks[n].any())}

    def __repr__(self) -> str:
        return "half()"


def units(problem: Problem) -> dict[str, list[list[Unit]]]:
    """By kind (attention, feed-forward, norms) the units of each block, in order. Raises BadInput for fused ones."""
    found: dict[str, list[list[Unit]]] = {"attention": [], "feed-forward": [], "norms": []}
    for block in blocks(problem.model):
        names = [f"model.{block}.{n}" for n, _ in problem.model.get_submodule(block).named_parameters()]
        if fused := next((n for n in names if FUSED.search(n)), None):
            raise BadInput(
                f"hft: {fused} holds query, key and value in one matrix, and how they lie in it is not known; "
                "name the weights that may move by a pattern instead"
            )
        made = _of_block(problem, [n for n in names if "lora_" not in n])
        for kind in found:
            found[kind].append([unit for k, unit in made if k == kind])
    return found


def _of_block(problem: Problem, names: list[str]) -> list[tuple[str, Unit]]:
    """Each matrix with its bias; what has no matrix beside it is a norm."""
    weights = problem.weights("model.*")
    matrices = [n for n in names if n in weights and weights[n].dim() > 1]
    made: list[tuple[str, Unit]] = []
    taken = set(matrices)
    for name in matrices:
        bias = name.removesuffix("weight") + "bias"
        both = (name, bias) if bias in names else (name,)
        taken.update(both)
        kind = "attention" if "attn" in name or "attention" in name else "feed-forward"
        made += [(kind, Unit(both, part)) for part in (range(3) if _sliced(name) is not None else [None])]
    norms: dict[str, list[str]] = {}
    for name in names:
        if name in weights and name not in taken:
            norms.setdefault(name.rpartition(".")[0], []).append(name)
    return [*made, *(("norms", Unit(tuple(group))) for group in norms.values())]


def draw(found: dict[str, list[list[Unit]]], generator: torch.Generator) -> list[Unit]:
    """The units that are held: half of each block's of each kind, of odd numbers one more in half of the blocks."""
    held: list[Unit] = []
    for each in found.values():
        more = set(torch.randperm(len(each), generator=generator)[: len(each) // 2].tolist())
        for i, mine in enumerate(each):
            count = len(mine) // 2 + (len(mine) % 2 and i in more)
            held += [mine[j] for j in torch.randperm(len(mine), generator=generator)[:count].tolist()]
    return held


def _sliced(name: str) -> int | None:
    """Along which dimension a weight holds three matrices, if it does."""
    return next((dim for word, dim in SLICED.items() if word in name.split(".")), None)


def _mask(name: str, weight: Tensor, parts: list[int | None]) -> Tensor:
    """True where a weight is trained."""
    mask, dim = torch.ones_like(weight, dtype=torch.bool), _sliced(name)
    for part in parts:
        (mask if part is None or dim is None else mask.chunk(3, dim)[part]).fill_(False)
    return mask
