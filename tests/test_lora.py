"""LoRA by surgery, and the terms of GS-LoRA."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oblivio import methods
from oblivio.contracts import TABLE
from oblivio.core import surgery
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.methods.unlearning.adapters.gs_lora import above, blocks, group_lasso, prototype
from oblivio.modules.lora import LoraLinear, add_lora, lora_layers, merge_lora, plain_linears
from oblivio.terms import fit


def nets() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"model": nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))})


@given(st.integers(1, 8), st.floats(0.1, 32), st.integers(0, 99))
def test_lora_starts_as_nothing_and_is_merged_into_the_same_outputs(rank: int, alpha: float, seed: int) -> None:
    made, journal = nets(), surgery.Journal()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    before, parameters = made["model"](x), dict(made.named_parameters())
    surgery.operate(made, journal, add_lora, layers=["0", "2"], rank=rank, alpha=alpha, seed=seed)
    assert torch.equal(made["model"](x), before)
    assert all(dict(made.named_parameters())[n] is p for n, p in parameters.items())
    with torch.no_grad():
        for layer in lora_layers(made["model"]).values():
            layer.lora_b.normal_(generator=torch.Generator().manual_seed(seed))
    adapted = made["model"](x)
    surgery.operate(made, journal, merge_lora)
    assert dict(made.named_parameters()).keys() == parameters.keys()
    assert type(made["model"][0]) is nn.Linear
    assert torch.allclose(made["model"](x), adapted, atol=1e-4)
    assert not torch.equal(adapted, before)
    again = nets()
    surgery.replay(again, journal)
    assert dict(again.named_parameters()).keys() == parameters.keys()


def test_the_change_is_alpha_over_rank_times_b_a() -> None:
    layer = LoraLinear(nn.Linear(2, 2), rank=1, alpha=3.0, seed=0)
    with torch.no_grad():
        layer.lora_a.copy_(torch.tensor([[1.0, 2.0]]))
        layer.lora_b.copy_(torch.tensor([[1.0], [-1.0]]))
    assert torch.equal(layer.delta(), torch.tensor([[3.0, 6.0], [-3.0, -6.0]]))
    x = torch.tensor([[0.5, 1.0]])
    assert torch.allclose(layer(x), F.linear(x, layer.weight + layer.delta(), layer.bias))


def test_layers_draw_their_own_beginnings_from_the_seed() -> None:
    one, two = nets(), nets()
    for made, seed in ((one, 1), (two, 2)):
        add_lora(made, layers=["0", "2"], rank=2, alpha=2.0, seed=seed)
    a, b = lora_layers(one["model"]), lora_layers(two["model"])
    assert not torch.equal(a["0"].lora_a, b["0"].lora_a)
    assert not torch.equal(a["0"].lora_a[:, :5], a["2"].lora_a)
    assert float(a["0"].lora_a.detach().abs().max()) <= 6**-0.5


def test_lora_says_what_it_cannot_do() -> None:
    made = nets()
    with pytest.raises(BadInput, match="no linear layer of the model"):
        add_lora(made, layers=["1"], rank=2, alpha=2.0, seed=0)
    with pytest.raises(BadInput, match="give 1 or more"):
        add_lora(made, layers=["0"], rank=0, alpha=2.0, seed=0)
    with pytest.raises(BadInput, match="add_lora comes first"):
        merge_lora(made)
    add_lora(made, layers=["0"], rank=2, alpha=2.0, seed=0)
    with pytest.raises(BadInput, match="merge_lora comes first"):
        add_lora(made, layers=["0"], rank=2, alpha=2.0, seed=0)


def test_layers_that_attention_never_calls_take_no_lora() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "fc": nn.Linear(4, 4)})
    assert plain_linears(model) == ["fc"]


def test_blocks_are_the_modules_that_hold_the_layers_or_the_layers_of_a_flat_model() -> None:
    deep = [f"model.{i}.{layer}.lora_{m}" for i in (0, 1) for layer in ("fc1", "fc2") for m in "ab"]
    assert {k: len(v) for k, v in blocks(deep).items()} == {"model.0": 4, "model.1": 4}
    flat = [f"model.{layer}.lora_{m}" for layer in ("hidden1", "hidden2") for m in "ab"]
    assert {k: len(v) for k, v in blocks(flat).items()} == {"model.hidden1": 2, "model.hidden2": 2}


def stepped(problem: Problem) -> Step:
    return Step(problem, "test", dict.fromkeys(problem.weights("model.*")), None, train=False)


def test_the_lasso_adds_norms_of_blocks_unsquared() -> None:
    made = nets()["model"]
    problem = Problem(made, task="classification", train={"x": torch.zeros(1, 6), "y": torch.tensor([0])})
    with torch.no_grad():
        for w in made.parameters():
            w.zero_()
        made[0].weight[0, :2] = torch.tensor([3.0, 4.0])
        made[2].weight[0, 0] = 2.0
    assert float(group_lasso()(stepped(problem)).detach()) == pytest.approx(5 + 2, abs=1e-4)
    slope = problem.gradient(group_lasso())["model.0.weight"]
    assert slope[0, :2].tolist() == pytest.approx([0.6, 0.8])
    assert bool(torch.isfinite(slope).all())


def test_the_bounded_loss_stops_at_its_bound() -> None:
    problem = TABLE["digits"].problem()
    loss = float(fit("forget")(stepped(problem)).detach())
    assert float(above(fit("forget"), loss + 1)(stepped(problem)).detach()) == pytest.approx(1, abs=1e-4)
    assert float(above(fit("forget"), loss - 0.1)(stepped(problem)).detach()) == 0
    up, down = problem.gradient(above(fit("forget"), 99.0)), problem.gradient(fit("forget"))
    assert all(torch.allclose(up[n], -down[n], atol=1e-6) for n in down)


def test_a_prototype_is_the_mean_output_of_a_class_and_the_distance_is_kl() -> None:
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    rows = {"x": torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), "y": torch.tensor([0, 0, 1])}
    problem = Problem(model, task="classification", train=rows)
    loss = prototype("train")
    loss.prepare(problem)
    assert torch.equal(loss.state["means"], torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    p = 1 / (1 + math.exp(-2))

    def kl(z: float) -> float:  # of the class's (2, 0) from a row's (z, 0)
        q = 1 / (1 + math.exp(-z))
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    assert float(loss(stepped(problem)).detach()) == pytest.approx((kl(1) + kl(3) + 0) / 3, abs=1e-6)


def test_gs_lora_keeps_the_architecture_and_every_weight_but_the_chosen_ones() -> None:
    start = TABLE["digits"].problem()
    done = Run(methods.gs_lora(layers="2", epochs=2), start.copy()).go()
    old, new = start.weights(), done.weights()
    assert [n for n in old if not torch.equal(old[n], new[n])] == ["model.2.weight"]
    assert len(done.sources["replay"]) == round(0.2 * len(start.sources["retain"]))
    with pytest.raises(BadInput, match="no linear layer of the model fits"):
        Run(methods.gs_lora(layers="conv*"), start.copy()).go()
