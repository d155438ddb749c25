"""SHARP: units that serve a class become stable; plastic ones are rewired; recent activations are replayed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import Opt
from oblivio.core.plan import Plan, Stage, edit
from oblivio.core.problem import Problem, rng
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.term import Term
from oblivio.core.where import Selection, Where
from oblivio.modules.neighbours import Neighbours, Remembered, host_neighbours, hosted, remember
from oblivio.registry import method
from oblivio.sources.memory import Memory
from oblivio.sources.rows import among

ACTIVITY_ROWS = 1024
LEVELS = 255  # of a stored activation


class Ages(Where):
    """Age of every hidden unit (0 plastic, 1 candidate, 2 and more mature) and the connections there are.

    What may move: connections into units that are not frozen. The first hidden layer freezes at age 2, the others,
    which are still replayed, at ``s`` + 2.
    """

    def __init__(self, s: int) -> None:
        self.s = s

    def begin(self, problem: Problem, sparsity: float) -> None:
        """All units are plastic; connections are drawn, and those that are not there have weight 0."""
        self.state.update(ages={}, masks={})
        for name, layer in hosted(problem.model).layers().items():
            count = round((1 - sparsity) * layer.weight.numel())
            order = torch.randperm(
                layer.weight.numel(), generator=rng(problem, "sharp", name), device=layer.weight.device
            )
            mask = torch.zeros(layer.weight.numel(), dtype=torch.bool, device=layer.weight.device)
            mask[order[:count]] = True
            self.state["masks"][name] = mask.view_as(layer.weight)
            self.state["ages"][name] = torch.zeros(layer.out_features, dtype=torch.long, device=layer.weight.device)
            layer.weight.mul_(self.state["masks"][name])

    def frozen(self, name: str) -> Tensor:
        """Of a layer the units whose incoming weights stay."""
        age: Tensor = self.state["ages"][name]
        return age > (1 if name.startswith("early") else self.s + 1)

    def select(self, problem: Problem) -> Selection:
        found: Selection = {}
        for name, layer in hosted(problem.model).layers().items():
            free = ~self.frozen(name)
            found[f"model.{name}.weight"] = free[:, None] & self.state["masks"][name]
            if layer.bias is not None:
                found[f"model.{name}.bias"] = free
        return found

    def age(self, name: str, answers: Tensor, tau: float) -> None:
        """Young units that help to cover ``tau`` of a layer's summed activity are candidates, the others plastic."""
        order = answers.sum(0).sort(descending=True, stable=True)
        reached = order.values.cumsum(0) >= tau * order.values.sum()
        chosen = torch.zeros_like(reached)
        chosen[order.indices[: int((~reached).sum()) + 1]] = True
        age = self.state["ages"][name]
        self.state["ages"][name] = torch.where(age < 2, chosen.long(), age)

    def rewire(self, problem: Problem) -> None:
        """Cut connections from plastic into other units; grow as many, with weight 0, into plastic ones."""
        layers = list(hosted(problem.model).layers().items())
        for (before, _), (name, layer) in pairwise(layers):
            mask, plastic = self.state["masks"][name], self.state["ages"][name] == 0
            gone = mask & (~plastic)[:, None] & (self.state["ages"][before] == 0)[None]
            room = (~mask & plastic[:, None]).flatten().nonzero().flatten()
            generator = rng(problem, "sharp", name, int(self.state["phase"]))
            grown = room[torch.randperm(len(room), generator=generator, device=room.device)[: int(gone.sum())]]
            mask &= ~gone
            mask.view(-1)[grown] = True
            layer.weight.mul_(mask)


class Latents(Memory):
    """Of the last ``s`` experiences ``n`` rows a class: what the first hidden layer answers, in 8 bits.

    The columns are ``h`` and the row's ``scale``, ``y`` and ``turn``; ``vectors`` in the state are the ids of the rows
    behind the vectors that the network remembers.
    """

    def __init__(self, n: int, s: int, batch: int) -> None:
        super().__init__(n, "replay", batch)
        self.n, self.s = n, s

    def put_episode(self, problem: Problem, stable: Tensor) -> None:
        """Random rows of every class of ``new``, the activations of units that are not stable left out."""
        source = problem.source("new")
        labels = torch.cat([batch["y"] for batch in source.batches(4096)]).long().cpu()
        order = torch.randperm(len(labels), generator=rng(problem, "sharp/latents"), device=problem.team.device).cpu()
        at = torch.cat([order[labels[order] == c][: self.n] for c in labels.unique()])
        batch = source.batch(at)
        with problem.evaluating():
            h = hosted(problem.model).early(batch["x"]) * stable
        scale = h.amax(1).clamp_min(1e-12)
        fresh = {
            "h": (h / scale[:, None] * LEVELS).round().to(torch.uint8),
            "scale": scale,
            "y": batch["y"].long(),
            "turn": torch.full_like(batch["y"], problem.turn, dtype=torch.long),
        }
        kept = self.state["rows"]["turn"][: len(self)].cpu() > problem.turn - self.s if len(self) else None
        self._replace(kept, fresh, np.asarray(batch["id"]))

    def of(self, label: int, turn: int) -> tuple[Tensor, Any]:
        """Activations of one class of one experience as they are replayed, and the ids of the rows."""
        held = {n: v[: len(self)] for n, v in self.state["rows"].items()}
        at = (held["y"] == label) & (held["turn"] == turn)
        return restored(held["h"][at], held["scale"][at]), self.ids[at.cpu().numpy()]

    def classes(self, turn: int) -> list[int]:
        """Those of one experience that are held."""
        held = {n: v[: len(self)] for n, v in self.state["rows"].items()}
        found: list[int] = held["y"][held["turn"] == turn].unique().tolist()
        return found

    def write(self, problem: Problem, entry: Remembered, place: int) -> None:
        """The vectors of a class from its stored activations, as the network now is."""
        h, ids = self.of(entry.label, entry.turn)
        with problem.evaluating():
            z = hosted(problem.model).late(h) * entry.units
        entry.vectors.zero_()
        entry.valid.zero_()
        count = min(len(z), len(entry.vectors))
        entry.vectors[:count], entry.valid[:count] = z[:count], True
        names = ids[:count]
        self.state.setdefault("vectors", {})[str(place)] = (
            torch.from_numpy(names) if names.dtype.kind in "iu" else [str(name) for name in names]
        )

    def forget(self, rows: Source, problem: Problem) -> str:
        done = [words] if (words := super().forget(rows, problem)) else []
        gone = 0
        for place, ids in self.state.get("vectors", {}).items():
            entry = hosted(problem.model).remembered[int(place)]
            assert isinstance(entry, Remembered)
            at = torch.from_numpy(np.flatnonzero(among(ids, rows.ids))).to(entry.valid.device)
            gone += int(entry.valid[at].sum())
            entry.vectors[at], entry.valid[at] = 0, False
        return ", ".join([*done, *([f"{gone} vectors removed"] if gone else [])])

    def _replace(self, kept: Tensor | None, fresh: dict[str, Tensor], ids: Any) -> None:
        old = {} if kept is None else {n: v[: len(kept)][kept.to(v.device)] for n, v in self.state["rows"].items()}
        names = ids if kept is None else np.concatenate([self.ids[kept.numpy()], ids])
        self.state["rows"] = {n: torch.cat([old[n], v]) if old else v for n, v in fresh.items()}
        self.state["ids"] = torch.from_numpy(names) if names.dtype.kind in "iu" else [str(name) for name in names]
        self.state["filled"] = len(names)


def restored(h: Tensor, scale: Tensor) -> Tensor:
    """Activations from their 8 bits, shape (n, units)."""
    return h.to(scale.dtype) * (scale / LEVELS)[:, None]


class Contrast(Term):
    """Supervised contrast of the features of stable units, of new rows and of replayed activations together."""

    whole = True

    def __init__(self, on: str, latents: Latents, ages: Ages, temperature: float) -> None:
        self.on, self.latents, self.ages, self.temperature = on, latents, ages, temperature

    def __call__(self, step: Step) -> Tensor:
        batch, old = step.batch(self.on), None
        y = [batch["y"].long()]
        step.problem.count(batch.source.name, len(batch))
        if len(self.latents) and self.latents.s:
            replay = step.batch(self.latents)
            old = restored(replay["h"], replay["scale"])
            y.append(replay["y"])
            step.problem.count(self.latents.name, len(replay))

        def features(nets: Any) -> Tensor:
            h = nets["model"].early(batch["x"])
            out: Tensor = nets["model"].late(h if old is None else torch.cat([h, old]))
            return out

        stable = list(self.ages.state["ages"].values())[-1] > 0
        return supervised_contrast(step.call(features) * stable, torch.cat(y), self.temperature) * step.share


def supervised_contrast(z: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Mean over rows of -mean log softmax of the similarities to other rows of their class; shape ()."""
    z = F.normalize(z, dim=1)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(own, -torch.inf)
    logs = similarity.log_softmax(1).masked_fill(own, 0)
    same = (y[:, None] == y[None]) & ~own
    some = same.any(1)
    each = (logs * same).sum(1)[some] / same.sum(1)[some]
    return -each.sum() / max(int(some.sum()), 1)


@edit
def begin(problem: Problem, ages: Ages, sparsity: float, k: int) -> None:
    """At the first experience: neighbours in place of the head, and random connections."""
    if not isinstance(problem.model, Neighbours):
        problem.operate(host_neighbours, k=k)
        ages.begin(problem, sparsity)
    if any(type(layer) is not nn.Linear for layer in hosted(problem.model).layers().values()):
        raise BadInput("sharp: the head had to grow; build the model with an output for every class of the stream")


@edit
def rewire(problem: Problem, ages: Ages, phase: int, K: int, tau_min: float) -> None:
    """One phase: which units are stable, and where connections go instead of from plastic to stable ones."""
    tau = max(50 * (1 + math.cos(phase * math.pi / K)), tau_min) / 100
    source = problem.source("new")
    order = torch.randperm(len(source), generator=rng(problem, "sharp/rows"), device=problem.team.device).cpu()
    batch = source.batch(order[:ACTIVITY_ROWS])
    problem.count(source.name, len(batch))
    with problem.evaluating():
        answers = hosted(problem.model).answers(batch["x"])
    for name, values in answers.items():
        ages.age(name, values, tau)
    ages.state["phase"] = phase
    ages.rewire(problem)


@edit
def settle(problem: Problem, ages: Ages, latents: Latents, m: int) -> None:
    """End of an experience: stable units grow older, its classes are remembered, plastic units begin anew."""
    model, state = hosted(problem.model), ages.state
    state["ages"] = {name: torch.where(age > 0, age + 1, age) for name, age in state["ages"].items()}
    early, last = next(iter(state["ages"].values())) > 0, list(state["ages"].values())[-1] > 0
    for place, entry in enumerate(model.remembered):
        if isinstance(entry, Remembered) and len(latents.of(entry.label, entry.turn)[1]):
            latents.write(problem, entry, place)  # its units moved once more while its rows were replayed
    latents.put_episode(problem, early)
    for label in latents.classes(problem.turn):
        problem.operate(remember, label=label, turn=problem.turn, m=m)
        entry = model.remembered[-1]
        assert isinstance(entry, Remembered)
        entry.units.copy_(last)
        latents.write(problem, entry, len(model.remembered) - 1)
    for name, layer in model.layers().items():
        _draw(problem, name, layer, state["ages"][name] == 0, state["masks"][name])


def _draw(problem: Problem, name: str, layer: nn.Linear, units: Tensor, mask: Tensor) -> None:
    """New weights into these units, as torch initialises a layer, where there are connections."""
    bound = layer.in_features**-0.5
    for kind, weight in (("weight", layer.weight), ("bias", layer.bias)):
        if weight is not None:
            generator = rng(problem, "sharp", name, kind)
            drawn = (2 * torch.rand(weight.shape, generator=generator, device=weight.device) - 1) * bound
            chosen = units if weight.dim() == 1 else units[:, None] & mask
            weight.copy_(torch.where(chosen, drawn, weight))


@method(
    kind="continual",
    paper="Gurbuz, Moorman and Dovrolis, SHARP: Sparsity and Hidden Activation RePlay for Neuro-Inspired Continual "
    "Learning, 2023",
    needs=("new",),
    tasks=("classification",),
    structure=True,
    aliases=("sparsity_and_hidden_activation_replay",),
    cost="one pass over at most 1,024 rows a phase; n activations in 8 bits a class of the last s experiences, m "
    "feature vectors a class for good",
)
def sharp(
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.6,
    P: Annotated[int, Field(gt=0)] = 10,
    E: Annotated[float, Field(gt=0)] = 3,
    K: Annotated[int, Field(gt=0)] = 30,
    tau_min: Annotated[float, Field(gt=0, le=100)] = 60.0,
    s: Annotated[int, Field(ge=0)] = 1,
    n: Annotated[int, Field(gt=0)] = 50,
    m: Annotated[int, Field(gt=0)] = 25,
    k: Annotated[int, Field(gt=0)] = 5,
    temperature: Annotated[float, Field(gt=0)] = 0.1,
    lr: Annotated[float, Field(gt=0)] = 1.0,
    batch: Annotated[int, Field(gt=1)] = 256,
    replay: Annotated[int, Field(gt=0)] = 256,
) -> Stage:
    """Make the units that serve the present classes stable, cut them off from all others, and vote by neighbours.

    Equation: in each of P phases the smallest set of units that covers the share tau = max(50 (1 + cos(p pi / K)),
    tau_min) percent of a layer's summed activity is stable (age 1 at least); connections from plastic (age 0) into
    stable units are cut and as many grown into plastic ones, with weight 0; E epochs of supervised contrast on new rows
    and replayed activations. At the end ages above 0 rise by one, early units freeze above 1 and later ones above s +
    1, plastic ones are drawn anew. A row is of the class with most votes among the k nearest of the m vectors a class,
    by the cosine over the units that were stable when it was learned.
    Needs: new rows with labels, where experiences end (roughly), a chain of linear layers with ReLU, two hidden ones at
    least, and an output for every class. The vectors of a class are written again while its activations are replayed.
    Fails: when hardly a unit is plastic any more, nothing new is learned but neighbours of what there is.
    """
    ages, latents = Ages(s), Latents(n, s, replay)
    loss, opt = Contrast("new", latents, ages, temperature), Opt(torch.optim.Adadelta, lr)
    stages: list[Stage] = [begin(ages, sparsity, k)]
    for phase in range(1, P + 1):
        stages += [rewire(ages, phase, K, tau_min), Descent(loss, ages, opt=opt, over="new", epochs=E, batch=batch)]
    return Plan([*stages, settle(ages, latents, m)])
