"""Surgery on the head, and the mask that only pretends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oblivio.core.errors import BadInput
from oblivio.core.surgery import operate, replay
from oblivio.modules.heads import WidenedLinear, last_linear, narrow_head, widen_head
from oblivio.modules.masked import MASKED, MaskedOutput, mask_output


def model(bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3, bias))


def widened(seed: int = 0, by: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    nets: dict[str, nn.Module] = {"model": model()}
    widen_head(nets, layer="2", by=by, seed=seed)
    net = nets["model"]
    assert isinstance(net, nn.Sequential)
    return net


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 5), st.booleans(), st.integers(1, 4))
def test_widening_keeps_the_function_on_old_outputs(
    features: int, outputs: int, by: int, bias: bool, rows: int
) -> None:
    linear = nn.Linear(features, outputs, bias)
    nets: dict[str, nn.Module] = {"model": nn.Sequential(linear)}
    x = torch.randn(rows, features)
    before = linear(x)
    widen_head(nets, layer="0", by=by, seed=0)
    wide = nets["model"]
    assert wide(x).shape == (rows, outputs + by)
    assert torch.equal(wide(x)[:, :outputs], before)
    narrow_head(nets, layer="0")
    assert torch.equal(nets["model"](x), before)


@pytest.mark.parametrize("bias", [True, False])
def test_the_old_weights_stay_the_same_objects_under_the_same_names(bias: bool) -> None:
    nets: dict[str, nn.Module] = {"model": model(bias)}
    before = dict(nets["model"].named_parameters())
    widen_head(nets, layer="2", by=4, seed=0)
    wide = dict(nets["model"].named_parameters())
    assert set(wide) - set(before) == {"2.extra_weight", "2.extra_bias"} - (set() if bias else {"2.extra_bias"})
    assert all(wide[k] is before[k] for k in before)
    narrow_head(nets, layer="2")
    after = dict(nets["model"].named_parameters())
    assert after.keys() == before.keys()
    assert all(after[k] is before[k] for k in before)
    assert type(nets["model"].get_submodule("2")) is nn.Linear


def test_what_was_learned_while_wide_is_kept() -> None:
    net = widened()
    net(torch.randn(4, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    torch.optim.SGD(net.parameters(), 0.1).step()
    learned = net[2].weight.detach().clone()
    nets: dict[str, nn.Module] = {"model": net}
    narrow_head(nets, layer="2")
    assert torch.equal(nets["model"].get_parameter("2.weight"), learned)


def test_new_rows_are_drawn_from_the_seed_alone_as_torch_would() -> None:
    first, again, other = (widened(seed, by=400)[2] for seed in (0, 0, 1))
    assert torch.equal(first.extra_weight, again.extra_weight)
    assert not torch.equal(first.extra_weight, other.extra_weight)
    for extra in (first.extra_weight, first.extra_bias):
        assert extra.abs().max() <= 5**-0.5
        assert extra.abs().mean().item() == pytest.approx(5**-0.5 / 2, rel=0.1)


def test_widening_moves_no_random_state() -> None:
    nets: dict[str, nn.Module] = {"model": model()}
    before = torch.get_rng_state()
    widen_head(nets, layer="2", by=1, seed=0)
    narrow_head(nets, layer="2")
    assert torch.equal(torch.get_rng_state(), before)


def test_mode_and_dtype_are_those_of_the_layer() -> None:
    nets: dict[str, nn.Module] = {"model": model().double().eval()}
    widen_head(nets, layer="2", by=1, seed=0)
    assert nets["model"](torch.randn(2, 6).double()).dtype == torch.float64
    assert not any(m.training for m in nets["model"].modules())
    narrow_head(nets, layer="2")
    assert not any(m.training for m in nets["model"].modules())


def test_the_model_may_be_the_layer() -> None:
    nets: dict[str, nn.Module] = {"model": nn.Linear(2, 2)}
    weight = nets["model"].weight
    widen_head(nets, layer=last_linear(nets["model"]), by=1, seed=0)
    assert isinstance(nets["model"], WidenedLinear)
    narrow_head(nets, layer="")
    assert nets["model"].weight is weight


def test_the_journal_rebuilds_it() -> None:
    nets: dict[str, nn.Module] = {"model": model()}
    journal: list[dict[str, Any]] = []
    operate(nets, journal, widen_head, layer="2", by=2, seed=7)
    operate(nets, journal, mask_output, classes=[1])
    again: dict[str, nn.Module] = {"model": model()}
    replay(again, journal)
    again["model"].load_state_dict(nets["model"].state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(again["model"](x), nets["model"](x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda nets: widen_head(nets, layer="2", by=0, seed=0), "widened by 0"),
        (lambda nets: widen_head(nets, layer="1", by=1, seed=0), "'1' is no linear layer"),
        (lambda nets: widen_head(nets, layer="hed", by=1, seed=0), "did you mean 'head'"),
        (lambda nets: narrow_head(nets, layer="2"), "has not been widened"),
        (lambda nets: [widen_head(nets, layer="2", by=1, seed=0) for _ in range(2)], "widened already"),
    ],
)
def test_surgery_that_cannot_be(change: Any, message: str) -> None:
    nets: dict[str, nn.Module] = {"model": model()}
    nets["model"].add_module("head", nn.Linear(3, 3))
    with pytest.raises(BadInput, match=message):
        change(nets)


def test_no_linear_layer_no_head() -> None:
    with pytest.raises(BadInput, match="no linear layer"):
        last_linear(nn.ReLU())


# --- masked output ---


@given(st.sets(st.integers(0, 2), min_size=1))
def test_a_mask_hides_some_logits_and_leaves_the_others(classes: set[int]) -> None:
    net, x = model(), torch.randn(4, 6)
    masked = MaskedOutput(net, sorted(classes))
    kept = [c for c in range(3) if c not in classes]
    assert (masked(x)[:, sorted(classes)] == MASKED).all()
    assert torch.equal(masked(x)[:, kept], net(x)[:, kept])
    assert torch.equal(masked.predict(x), masked(x))
    assert not masked.deletes


def test_a_mask_changes_no_weight_and_passes_gradients() -> None:
    nets: dict[str, nn.Module] = {"model": model()}
    before = dict(nets["model"].named_parameters())
    mask_output(nets, classes=[0, 0])
    assert {k.removeprefix("net."): v for k, v in nets["model"].named_parameters()} == before
    nets["model"](torch.randn(4, 6)).sum().backward()
    gradient = before["2.bias"].grad
    assert gradient is not None
    assert gradient.tolist() == [0, 4, 4]


@pytest.mark.parametrize("classes", [[], [-1], [3]])
def test_classes_that_cannot_be_masked(classes: list[int]) -> None:
    with pytest.raises(BadInput, match="mask"):
        MaskedOutput(model(), classes)(torch.randn(1, 6))
