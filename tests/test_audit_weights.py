"""Probes that change a copy of the model: weights on a coarse grid, and relearning from a few rows."""

from __future__ import annotations

from typing import Any

import pytest
import small
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from oblivio import data
from oblivio.audits.case import Case, gather
from oblivio.audits.probe import Figure, figure, known
from oblivio.audits.probes.relearning import _parted, relieved
from oblivio.audits.probes.rounding import on_grid, rounded
from oblivio.audits.subjects import Modules, Subject, mask
from oblivio.core.problem import Problem
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.jobs.training import train
from oblivio.networks import Architecture


def passed(problem: Problem, classes: tuple[int, ...] = (), **models: Modules) -> Case:
    """The case of a problem's model as the original, and of these; an outcome by its name, the others references."""
    kinds = {"outcome": "outcome", "masked": "control"}
    subjects = [Subject(name, kinds.get(name, "reference"), nets) for name, nets in models.items()]  # type: ignore[arg-type]
    return gather(problem, [Subject("original", "original", dict(problem.nets.items())), *subjects], classes)


def measured(name: str, of: Case) -> Figure:
    return figure(known()[name], of)


def values(name: str, of: Case) -> dict[str, float]:
    found = measured(name, of)
    assert found.state == "figure", found.why
    return {model: value.value for model, value in found.values.items()}


def why(name: str, of: Case) -> str:
    found = measured(name, of)
    assert found.state == "does not apply", found
    return found.why


@pytest.fixture(scope="module")
def digits() -> Case:
    """Class 3 goes: the original, its output masked, and three models that never saw the class."""
    rows, test = data.load("digits").train.take(range(700)), data.load("digits").test
    goes = torch.as_tensor(rows.batch(torch.arange(700))["y"] == 3)
    net = Network(Architecture("mlp", (1, 8, 8), 10, {"hidden": [64, 32]}))
    recipe = Recipe(optimiser="adam", lr=3e-3, schedule="constant", epochs=12, batch=64)
    never = [train(recipe, net, rows.take(~goes), seed, task="classification").module for seed in (1, 2, 3)]
    original = train(recipe, net, rows, 0, task="classification").module
    problem = Problem(original, task="classification", forget=rows.take(goes), retain=rows.take(~goes), test=test)
    masked = mask({"model": original}, [3])
    return passed(problem, (3,), masked=masked, **{f"never {i}": {"model": m} for i, m in enumerate(never)})


# --- the grid


def test_a_grid_by_hand() -> None:
    weight = torch.tensor([[7.0, -3.4, 1.6], [0.7, 0.16, 0], [0, 0, 0]])
    torch.testing.assert_close(on_grid(weight, 4), torch.tensor([[7.0, -3, 2], [0.7, 0.2, 0], [0, 0, 0]]))


@given(st.integers(0, 99), st.sampled_from([4, 8]), st.sampled_from([(5, 7), (4, 3, 2, 2), (6, 5, 3)]))
def test_the_grid_is_that_of_torch(seed: int, bits: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    most = 2 ** (bits - 1) - 1
    steps = weight.flatten(1).abs().amax(1) / most
    theirs = torch.fake_quantize_per_channel_affine(
        weight, steps, torch.zeros(shape[0], dtype=torch.int), 0, -most, most
    )
    ours = on_grid(weight, bits)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(on_grid(ours, bits), ours)
    assert all(len(row.unique()) <= 2**bits - 1 for row in ours)


def test_biases_and_norms_stay_and_so_does_the_model() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = rounded(model, 4).state_dict()
    assert small.same(before, dict(model.state_dict()))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"0.weight", "2.weight"}


# --- rounded models


def test_eight_bits_change_little_and_four_change_more(digits: Case) -> None:
    original = digits.original.subject.nets["model"]
    x = digits.problem.source("test").batch(torch.arange(200))["x"]
    with torch.no_grad():
        out, *others = (model(x) for model in (original, rounded(original, 8), rounded(original, 4)))
    far = [float((other - out).norm() / out.norm()) for other in others]
    assert 0 < far[0] < 0.02 < far[1]


def test_rounding_brings_no_class_to_models_that_never_knew_it(digits: Case) -> None:
    for name in ("rounded_8", "rounded_4"):
        found = values(name, digits)
        assert found["original"] > 0.9
        assert max(value for model, value in found.items() if model != "original") == 0


def test_a_change_of_less_than_half_a_step_is_undone() -> None:
    """The steps of the two outputs are 1 and 0.9, so 3.6 becomes 4 and 3.65 becomes 3.6."""
    hidden = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[7.0, 3.6], [6.3, 3.65]]))
    rows = (torch.tensor([[0.0, 1.0]] * 30), torch.zeros(30, dtype=torch.long))
    of = passed(Problem(nn.Linear(2, 2), task="classification", forget=rows, test=rows), outcome={"model": hidden})
    assert float(of.outcome["forget"].quality.mean()) == 0
    assert values("rounded_8", of)["outcome"] == 0
    assert values("rounded_4", of)["outcome"] == 1


def test_a_rounded_model_passes_over_forgotten_rows_only_and_nothing_is_counted(digits: Case) -> None:
    model = digits.original.subject.nets["model"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[int] = []
    handle = model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))  # copies keep the hook
    model.train()
    only = Case(digits.problem, [digits.original], (3,), digits.targets, {}, digits.sample)
    measured("rounded_8", only)
    handle.remove()
    assert sum(seen) == len(digits.targets["forget"])
    assert digits.problem.passes == {}
    assert model.training
    assert small.same(before, dict(model.state_dict()))
    model.eval()


# --- relearning


def test_a_mask_does_not_hide_what_is_relearned(digits: Case) -> None:
    found = values("relearning", digits)
    assert found["masked"] == found["original"]
    assert found["masked"] > max(found[f"never {i}"] for i in range(3)) + 0.05


def test_relearning_has_a_curve_and_leaves_everything_as_it_was(digits: Case) -> None:
    nets = [look.subject.nets["model"] for look in digits.looks]
    before = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in nets]
    random = torch.get_rng_state()
    value = measured("relearning", digits).values["original"]
    assert [step for step, _ in value.curve] == [5, 10, 20, 40]
    assert value.value == pytest.approx(sum(share for _, share in value.curve) / 4)
    assert value.rows == len(digits.targets["forget"]) - 20
    assert value.low is not None
    assert value.low < value.value
    assert all(small.same(old, dict(net.state_dict())) for old, net in zip(before, nets, strict=True))
    assert not any(weight.grad is not None for net in nets for weight in net.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert digits.problem.passes == {}
    assert measured("relearning", digits).values["original"] == value


def test_rows_are_learned_from_or_scored_never_both(digits: Case) -> None:
    few, held = _parted(digits)
    gone = digits.problem.source("forget")
    batch = few.batch(torch.arange(len(few)))
    assert batch["y"].bincount().tolist() == [20] * 10
    scored = held.batch(torch.arange(len(held)))["x"].flatten(1)
    learned = batch["x"][batch["y"] == 3].flatten(1)
    assert len(learned) + len(scored) == len(gone)
    assert float(torch.cdist(learned, scored).min()) > 0


def test_half_of_a_class_is_left_to_score_on() -> None:
    x, y = torch.zeros(40, 6), torch.tensor([0] * 30 + [1] * 9 + [2])
    case = passed(small.problem(forget=(x, y), retain=(x, y.flip(0)), test=(x, y)))
    few, held = _parted(case)
    assert few.batch(torch.arange(len(few)))["y"].bincount().tolist() == [30, 8]
    assert held.batch(torch.arange(len(held)))["y"].bincount().tolist() == [15, 5, 1]


def test_many_rows_are_scored_by_a_stated_number() -> None:
    y = torch.zeros(2500, dtype=torch.long)
    case = passed(small.problem(forget=(torch.zeros(2500, 6), y), test=(torch.zeros(4, 6), y[:4])))
    assert len(_parted(case)[1]) == 827  # every third of 2,480


def test_few_rows_cannot_be_relearned_from() -> None:
    for y in (torch.arange(19) % 4, torch.arange(40)):
        rows = (torch.zeros(len(y), 6), y)
        case = passed(small.problem(lambda: small.mlp(outputs=40), forget=rows, test=rows))
        assert why("relearning", case) == (
            f"{len(y)} forgotten rows are too few to relearn from some and score on others"
        )


def test_the_last_layer_starts_at_nothing_and_a_mask_is_off() -> None:
    model = small.mlp()
    other = relieved(mask({"model": model}, [1])["model"])
    assert [(name, bool(w.any())) for name, w in other.named_parameters()] == [
        ("0.weight", True), ("0.bias", True), ("2.weight", False), ("2.bias", False),
    ]  # fmt: skip
    assert bool(model[2].weight.any())


class Shallow(nn.Module):
    """Convolutions alone: there is no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(1, 4, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.filter(x[:, None]).flatten(1)
        return out


def test_without_a_linear_layer_nothing_can_start_anew() -> None:
    rows = small.rows(40, 6)
    assert "no linear layer" in why("relearning", passed(small.problem(Shallow, forget=rows, test=rows)))


def test_very_large_features_stay_finite() -> None:
    def broken() -> nn.Sequential:
        net = small.mlp()
        net[1] = nn.ReLU()
        with torch.no_grad():
            net[0].weight.mul_(1e6)
        return net

    rows = small.rows(40, 6)
    assert 0 <= values("relearning", passed(small.problem(broken, forget=rows, test=rows)))["original"] <= 1


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regression_has_its_error_for_a_figure(outputs: int) -> None:
    x, g = small.rows(60, 6)[0], torch.Generator().manual_seed(5)
    y = x[:, :outputs] + 0.1 * torch.randn(60, outputs, generator=g)
    parts: dict[str, Any] = {
        "forget": (x[:30], y[:30]), "retain": (x[30:50], y[30:50]), "test": (x[50:], y[50:]),
    }  # fmt: skip
    case = passed(small.problem(lambda: small.mlp(outputs=outputs), task="regression", **parts))
    curve = measured("relearning", case).values["original"].curve
    assert curve[-1][1] < curve[0][1]
    assert measured("relearning", case).values["original"].rows == 15
