"""Continual backprop: a piece that keeps a network able to learn by drawing its least useful units anew."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.where import How
from oblivio.methods.pieces._learning import learning
from oblivio.modules.chain import links
from oblivio.registry import method


@method(
    kind="piece",
    paper="Dohare et al., Loss of Plasticity in Deep Continual Learning, Nature 632, 2024",
    needs=("new|retain|train",),
    on="er",
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("continual_backprop", "continual_backpropagation"),
    cost="three numbers a unit, and means over each hidden layer's activations and outgoing weights a step; no pass",
)
def cbp(
    rho: Annotated[float, Field(ge=0, lt=1)] = 1e-4,
    maturity: Annotated[int, Field(ge=0)] = 100,
    eta: Annotated[float, Field(ge=0, lt=1)] = 0.99,
    utility: Literal["contribution", "adaptable"] = "contribution",
) -> Callable[[Stage], Stage]:
    """After every step, draw anew a tiny share of the old units that the next layer needs least.

    Equation: per hidden layer u <- eta u + (1 - eta) y with y = mean|h| mean|V| (``adaptable``: mean|h - f| mean|V| /
    mean|W|), h a unit's activation, f its running mean, W and V its incoming and outgoing weights. Of the units older
    than ``maturity`` steps the share ``rho`` a step with the lowest u is renewed: b_next += V f, W from Kaiming's
    uniform distribution, bias and V zero, u, f, age and the optimiser's moments zero.
    Needs: a chain of linear layers and convolutions (``modules.chain``): batch norm, dropout, pooling and Flatten may
    stand between; other models are refused. A unit with a weight that may not move stays. Where the next layer has no
    bias, nothing is folded into it.
    Fails: at a high rate the moments of Adam drive networks to dead units faster than ``rho`` renews them; at a high
    ``rho`` what was learned is lost. The published code zeroes f before it is folded; here it is folded.
    """

    def put(plan: Stage) -> Stage:
        plan, found = learning(plan, "cbp")
        for descent, on in found:
            descent.how = [*descent.how, Renewal(on, rho, maturity, eta, utility)]
        return plan

    return put


class Renewal(How):
    """Keeps per unit its utility ``u``, mean activation ``f`` and age ``a``, and per layer the units due, ``r``."""

    def __init__(self, on: str, rho: float, maturity: int, eta: float, utility: str) -> None:
        self.on, self.rho, self.maturity, self.eta, self.utility = on, rho, maturity, eta, utility

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]
        """The layers that read hidden units."""
        return tuple(f"model.{link['next']}" for link in self.state.get("links", ()))

    def prepare(self, problem: Problem) -> None:
        found, device = links(problem.model), problem.team.device
        self.state["links"] = [dataclasses.asdict(link) for link in found]
        units = self.state.setdefault("units", {})
        for link in found:
            known = units.get(link.layer)
            if known is None or len(known["u"]) != link.units:
                zeros = torch.zeros(link.units, device=device)
                # ages stay on the CPU: how many units are due is asked at every step, and must not wait for a device
                age = torch.zeros(link.units, dtype=torch.long)
                units[link.layer] = {"u": zeros, "f": zeros.clone(), "a": age, "r": 0.0}

    def after(self, step: Step) -> None:
        for around in self._layers(step):
            unit = self.state["units"][around.name]
            self._follow(unit, around, step.gathered(self.on, step.seen(self.on, layer=around.reader)))
            ready = unit["a"] > self.maturity
            if around.free is not None:
                ready &= around.free
            unit["r"] += self.rho * int(ready.sum())
            due = int(unit["r"])
            unit["r"] -= due
            if due:
                self._renew(unit, around, ready, due)

    def _layers(self, step: Step) -> list[_Around]:
        if self.__dict__.get("_step") is not step:  # a stage makes another where what may move or the structure changes
            self._step, self._around = step, [_Around(step, link) for link in self.state["links"]]
        return self._around

    def _follow(self, unit: dict[str, Any], around: _Around, seen: Tensor) -> None:
        """The running means of activation and utility."""
        unit["a"] += 1
        h = around.activations(seen)
        unit["f"].lerp_(h.mean((0, 2)), 1 - self.eta)
        if self.utility == "adaptable":
            mean = unit["f"] / self._corrected(unit)
            y = (h - mean.view(1, -1, 1)).abs().mean((0, 2)) / around.layer.weight.abs().flatten(1).mean(1)
        else:
            y = h.abs().mean((0, 2))
        unit["u"].lerp_(y * around.weighed(), 1 - self.eta)

    def _corrected(self, unit: dict[str, Any]) -> Tensor:
        """What running means that began at zero are to be divided by."""
        corrected: Tensor = (1 - self.eta ** unit["a"].float().clamp_min(1)).to(unit["u"].device)
        return corrected

    def _renew(self, unit: dict[str, Any], around: _Around, ready: Tensor, due: int) -> None:
        c = self._corrected(unit)
        rank = (unit["u"] / c).masked_fill(~ready.to(c.device), math.inf)
        i = rank.topk(min(due, int(ready.sum())), largest=False).indices
        around.fold(i, (unit["f"] / c)[i])
        around.draw(i)
        around.clear(i)
        unit["u"][i] = unit["f"][i] = 0
        unit["a"][i.cpu()] = 0

    def forget(self, rows: Source, problem: Problem) -> str:
        """The means are over all rows so far: they cannot be taken apart, so they go, and every unit is young again."""
        held = bool(self.state)
        self.state.clear()
        return "means of activations dropped" if held else ""


class _Around:
    """The weights around the units of one hidden layer, and what a step may do to them."""

    def __init__(self, step: Step, link: dict[str, Any]) -> None:
        nets = step.problem.nets
        self.step, self.name, self.units = step, link["layer"], link["units"]
        self.layer: Any = nets.get_submodule(f"model.{link['layer']}")
        self.norms: list[Any] = [nets.get_submodule(f"model.{name}") for name in link["norms"]]
        self.next = nets.get_submodule(f"model.{link['next']}")
        into = {f"model.{n}": nets.get_submodule(f"model.{n}") for n in (link["layer"], *link["norms"])}
        self.into = {f"{at}.{n}": w for at, module in into.items() for n, w in module.named_parameters()}
        self.reader = f"model.{link['next']}"
        self.out = {f"{self.reader}.{n}": w for n, w in self.next.named_parameters()}
        self.readers = {n: w for n, w in self.out.items() if w.dim() > 1}  # a head that has grown has several
        self.free = self._free()

    def outgoing(self, weight: Tensor) -> Tensor:
        """Outgoing weights as (outputs, units, places): the taps of a kernel, or the pixels that were flattened."""
        return weight.reshape(len(weight), self.units, -1)

    def columns(self, weight: Tensor, i: Tensor) -> Tensor:
        """Where units ``i`` lie in the second dimension of an outgoing weight; where pixels were flattened, often."""
        each = weight.shape[1] // self.units
        return (i[:, None] * each + torch.arange(each, device=i.device)).flatten()

    def activations(self, h: Tensor) -> Tensor:
        """Activations as (rows, units, places); what stands before the columns of a linear layer counts as rows."""
        if isinstance(self.next, nn.Linear):
            return h.reshape(-1, self.units, h.shape[-1] // self.units)
        return h.flatten(2)

    def weighed(self) -> Tensor:
        """The mean size of each unit's outgoing weights."""
        sums = torch.stack([self.outgoing(w).abs().sum((0, 2)) for w in self.readers.values()]).sum(0)
        return sums * (self.units / sum(w.numel() for w in self.readers.values()))

    def _free(self) -> Tensor | None:
        """The units all of whose weights may move, on the CPU; None where those are all."""
        chosen, weights = self.step.selection, {**self.into, **self.readers}
        masks = {n: chosen[n] if n in chosen else torch.zeros_like(w) for n, w in weights.items()}
        if all(mask is None for mask in masks.values()):
            return None
        free = torch.ones(self.units, dtype=torch.bool)
        for name, mask in masks.items():
            if mask is not None:
                rows = self.outgoing(mask).transpose(0, 1) if name in self.readers else mask
                free &= rows.bool().reshape(self.units, -1).all(1).cpu()
        return free

    def fold(self, i: Tensor, f: Tensor) -> None:
        """Put the mean outputs ``f`` of units ``i`` into the next biases, where these may move, and cut them off."""
        for name, weight in self.readers.items():
            own = name.removeprefix(self.reader)
            bias = self.reader + own.replace("weights", "biases").replace("weight", "bias")
            if self.step.selection.get(bias, f) is None:
                self.out[bias].add_(self.outgoing(weight)[:, i].sum(2) @ f)
            weight[:, self.columns(weight, i)] = 0

    def draw(self, i: Tensor) -> None:
        """New incoming weights; biases, and what a batch norm has of these units, as they begin."""
        weight, rng = self.layer.weight, self.step.rng(f"cbp/{self.name}")
        bound = math.sqrt(2) * math.sqrt(3 / weight[0].numel())  # Kaiming's, with the gain of a ReLU
        weight[i] = (2 * torch.rand(weight[i].shape, generator=rng, device=weight.device) - 1) * bound
        if self.layer.bias is not None:
            self.layer.bias[i] = 0
        for norm in self.norms:
            for value, start in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)):
                if value is not None:
                    value[i] = start

    def clear(self, i: Tensor) -> None:
        """Take these units out of the optimiser's moments."""
        assert self.step.opt is not None
        for name in self.into:
            self.step.opt.clear(name, i)
        for name, weight in self.readers.items():
            self.step.opt.clear(name, (slice(None), self.columns(weight, i)))
