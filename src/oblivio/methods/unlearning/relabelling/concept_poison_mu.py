"""Poisoning by concepts: a class is given the labels of the class that shares its concepts, or random ones."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.problem import Nets, Problem
from oblivio.core.seeds import mix
from oblivio.core.source import Batch
from oblivio.core.term import On
from oblivio.registry import method
from oblivio.terms import fit, toward


def features(problem: Problem, on: On) -> Tensor:
    """The inputs of the feature layer over a source, flattened; shape (rows, width)."""
    layer, found = problem.nets.get_submodule(problem.features), []

    def look(nets: Nets, batch: Batch) -> Tensor:
        handle = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().flatten(1)))
        try:
            problem.task.forward(nets, "model", batch)
        finally:
            handle.remove()
        return found.pop()

    with torch.no_grad():
        return problem.tabulate(on, look).cpu()


def bank(values: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Concept directions, shape (count, width): centres of k-means less the mean, and the mean."""
    from sklearn.cluster import KMeans

    mean = values.mean(0)
    count = min(count, len(values))
    means = KMeans(count, n_init=4, random_state=seed % 2**32).fit((values - mean).double().numpy())
    return torch.from_numpy(means.cluster_centers_).float(), mean


def influence(concepts: Tensor, values: Tensor, labels: Tensor, classes: int, l1: float) -> Tensor:
    """Weights of a sparse linear map from scores of concepts to classes, shape (classes, concepts).

    The score of a concept is <g, v> / |v|^2 of the features g, standardised; the map is a multinomial logistic
    regression, its mean loss penalised by l1 (|W|_1 / 2 + |W|^2 / 4), by accelerated proximal steps. (Least squares in
    its place named classes that a retrained model never takes the rows for.)
    """
    x = (values @ concepts.T / concepts.square().sum(1).clamp_min(1e-12)).double()
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-12)
    x, y = F.pad(x, (0, 1), value=1.0), F.one_hot(labels.long(), classes).double()
    penalty = F.pad(torch.full_like(x[0, :-1], l1 / 2), (0, 1))  # none on the bias, the last column
    rate = 1 / (float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1]) / 2 + l1 / 2)
    weights = ahead = torch.zeros(classes, x.shape[1], dtype=torch.float64)
    for i in range(500):
        gradient = (torch.softmax(x @ ahead.T, 1) - y).T @ x / len(x) + penalty * ahead
        before, weights = weights, ahead - rate * gradient
        weights = weights.sign() * (weights.abs() - rate * penalty).clamp_min(0)
        ahead = weights + i / (i + 3) * (weights - before)
    return weights[:, :-1].float()


def confusing(weights: Tensor, gone: list[int], staying: list[int], top: int) -> dict[int, int]:
    """For each class that goes the one that stays with the largest overlap sum_c W[gone, c] W[stays, c].

    Over the ``top`` concepts whose weight for the class that goes is largest.
    """
    found = {}
    for c in gone:
        chosen = weights[c].topk(min(top, weights.shape[1])).indices
        overlap = weights[staying][:, chosen] @ weights[c][chosen]
        found[c] = staying[int(overlap.argmax())]
    return found


class poisoned(toward):
    """CE towards another class for every forgotten row: the confusing one of its class, or a random one that stays.

    ``state["confusing"]`` names the confusing class of each class that goes. The directions are found on retained rows.
    """

    def __init__(self, on: On, variant: str, concepts: int, top: int, l1: float) -> None:
        super().__init__(on)
        self.variant, self.concepts, self.top, self.l1 = variant, concepts, top, l1

    def find(self, problem: Problem) -> dict[str, Tensor]:
        """The targets, and what state tells of them."""
        own, kept = (_labels(problem, on) for on in (self.on, "retain"))
        going, staying = set(own.tolist()), set(kept.tolist())
        if len(staying) < 2:
            raise BadInput("retain: rows of one class alone; concepts that tell classes apart need two or more")
        draw = torch.Generator().manual_seed(mix(problem.seed, problem.turn, "poison"))
        if self.variant == "random":
            return {"target": another(own, sorted(staying), draw).to(problem.team.device)}
        values = {on: features(problem, on) for on in (self.on, "retain")}
        found, mean = bank(values["retain"], self.concepts, mix(problem.seed, problem.turn, "concepts"))
        classes = max(going | staying) + 1
        both = torch.cat([values["retain"], values[self.on]]) - mean
        weights = influence(found, both, torch.cat([kept, own]), classes, self.l1)
        names = {c: confusing(weights, [c], sorted(staying - {c}), self.top)[c] for c in sorted(going)}
        self.state["confusing"] = {str(c): to for c, to in names.items()}
        return {"target": torch.tensor([names[c] for c in own.tolist()], device=problem.team.device)}

    def __repr__(self) -> str:
        return f"poisoned({self.on!r}, {self.variant}, concepts={self.concepts}, top={self.top}, l1={self.l1:g})"


def another(own: Tensor, staying: list[int], generator: torch.Generator) -> Tensor:
    """For every row a class drawn evenly from those that stay and are not its own."""
    targets = torch.empty_like(own)
    for c in own.unique().tolist():
        others, rows = torch.tensor([s for s in staying if s != c]), own == c
        targets[rows] = others[torch.randint(len(others), (int(rows.sum()),), generator=generator)]
    return targets


def _labels(problem: Problem, on: On) -> Tensor:
    labels = [batch["y"].cpu() for batch in problem.source(on).batches(4096)]
    return torch.cat(labels)


@method(
    paper="Class Machine Unlearning for Complex Data via Concepts Inference and Data Poisoning, 2024",
    needs=("forget", "retain"),
    tasks=("classification",),
    serves=("class",),
    refusal="it gives every forgotten row to another class, where one retrained without random rows gets most right",
    aliases=("concept_poisoning", "targeted_relabelling", "targeted_relabel"),
    cost="one pass over forget and retain for the concepts, then epochs over retain, and a forget batch beside each",
)
def concept_poison_mu(
    variant: Literal["targeted", "random"] = "targeted",
    concepts: Annotated[int, Field(gt=1)] = 12,
    top: Annotated[int, Field(gt=0)] = 4,
    l1: Annotated[float, Field(gt=0)] = 0.01,
    lr: Annotated[float, Field(gt=0)] = 0.01,
    epochs: Annotated[float, Field(gt=0)] = 3,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Find the class that shares most concepts with the forgotten one, and train the forgotten rows to be called that.

    Equation: min CE(forget, y*) + CE(retain); y* has the largest sum over the ``top`` concepts c of the forgotten class
    of W[y, c] W[forgotten, c], W a sparse logistic map from <g(x), v_c> / |v_c|^2 to classes, v_c the k-means
    directions of the features g of retained rows. ``random`` draws y* of each row from all classes that stay.
    Needs: forgotten and retained rows with labels; a feature layer. Concepts may be made of retained rows alone; only
    their weights for the forgotten class use its rows.
    Fails: the class goes over to y* as one, a trace that a retrained model shows only in part; audit it. Inputs are
    not masked here.
    """
    loss = poisoned("forget", variant, concepts, top, l1) + fit("retain")
    return Descent(loss, opt=sgd(lr, 0.9), over="retain", epochs=epochs, batch=batch)
