"""Probes of the features: linear and nearest-neighbour probes, recovery, CKA, and the protocol of the card uuef."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import harmonic_mean
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from oblivio.audits.case import Case, Look, gather
from oblivio.audits.probe import Figure, Value, figure, known
from oblivio.audits.probes.features import ridge
from oblivio.audits.probes.layers import similarity
from oblivio.audits.seen import Seen
from oblivio.audits.subjects import Kind, Subject, mask
from oblivio.core.problem import Problem

Rows = Mapping[str, Tensor]
ROWS = {"forget": 600, "retain": 40, "test": 700}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def case(targets: Rows, *models: Rows, task: str = "classification", classes: tuple[int, ...] = (),
         right: Rows | None = None, outputs: int = 4) -> Case:  # fmt: skip
    """A case of models with these features; the first is the outcome, the second the original, others references."""
    problem = Problem(nn.Linear(1, 1), task=task, **{on: (torch.zeros(len(y), 1), y) for on, y in targets.items()})
    kinds: list[Kind] = ["outcome", "original", *["reference"] * len(models)]  # type: ignore[list-item]
    sample = {on: torch.arange(len(y)) for on, y in targets.items()}
    looks = []
    for i, (model, kind) in enumerate(zip(models, kinds, strict=False)):
        seen = {}
        for on, features in model.items():
            hits = torch.zeros(len(features)) if right is None else right[f"{on} {i}"]
            seen[on] = Seen(torch.zeros(len(features), outputs), hits, hits, hits, features)
        looks.append(Look(Subject(f"model {i}", kind, {}), seen))
    return Case(problem, looks, classes, targets, {}, sample)


def measured(name: str, of: Case) -> Figure:
    return figure(known()[name], of)


def first(name: str, of: Case) -> Value:
    """The outcome's figure."""
    found = measured(name, of)
    assert found.state == "figure", found.why
    return next(iter(found.values.values()))


def why(name: str, of: Case) -> str:
    found = measured(name, of)
    assert found.state == "does not apply", found
    return found.why


def blobs(rows: Mapping[str, int], spread: float, width: int = 6) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Targets of four classes and features about a centre for each."""
    centres = normal(4, width, seed=9)
    y = {on: torch.arange(n) % 4 for on, n in rows.items()}
    x = {on: centres[y[on]] + spread * normal(n, width, seed=i) for i, (on, n) in enumerate(rows.items())}
    return y, x


# --- the linear probe


@pytest.mark.parametrize("width", [3, 6, 90])
def test_the_linear_probe_is_the_ridge_regression_of_scikit_learn(width: int) -> None:
    y, x = blobs({"forget": 30, "test": 80}, 1.5, width)
    scale = StandardScaler().fit(x["test"].double().numpy())
    seen, asked = (scale.transform(x[on].double().numpy()) for on in ("test", "forget"))
    theirs = Ridge(alpha=width).fit(seen, np.eye(4)[y["test"]]).predict(asked).argmax(1)
    found = first("linear_probe", case(y, x, x))
    assert found.value == pytest.approx((theirs == y["forget"].numpy()).mean())
    assert 0 < found.value < 1 or width == 90
    assert found.rows == 30


def test_ridge_by_hand() -> None:
    found = ridge(torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [3.0]]), 2.0)
    assert found.tolist() == [[1.0]]  # 4 / (2 + 2)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.01, 10))
def test_both_sides_of_the_ridge_agree(n: int, d: int, strength: float) -> None:
    x, y = normal(n, d).double(), normal(n, 2, seed=1).double()
    w = ridge(x, y, strength)
    torch.testing.assert_close(x.T @ (y - x @ w), strength * w)  # where the gradient vanishes


def test_features_that_hold_nothing_are_at_chance_and_constant_ones_do_no_harm() -> None:
    y, x = blobs({"forget": 400, "test": 400}, 0.1)
    clear = {on: torch.cat([each, torch.full((len(each), 1), 3.0)], 1) for on, each in x.items()}
    blurred = {on: normal(len(each), 6, seed=i) for i, (on, each) in enumerate(x.items())}
    found = measured("linear_probe", case(y, clear, blurred)).values
    assert found["model 0"].value == 1
    assert found["model 1"].value == pytest.approx(0.25, abs=0.08)


def test_a_class_that_unseen_rows_do_not_have_cannot_be_read_off() -> None:
    y, x = blobs({"forget": 8, "test": 8}, 0.1)
    y["forget"] = torch.full((8,), 3)
    y["test"] = torch.arange(8) % 3
    for name in ("linear_probe", "nearest_probe"):
        assert "no test row is of a class that forgotten rows have" in why(name, case(y, x, x))


@pytest.mark.parametrize("name", ["linear_probe", "nearest_probe"])
def test_labels_are_read_off_one_by_one(name: str) -> None:
    x = {on: normal(n, 2, seed=n) for on, n in {"forget": 300, "test": 301}.items()}
    several = {on: (each > 0).long() for on, each in x.items()}
    several["forget"] = 1 - several["forget"] * torch.tensor([0, 1])  # all right of the first, all wrong of the second
    several["forget"][:, 0] = (x["forget"][:, 0] > 0).long()
    found = first(name, case(several, x, x, task="multilabel", outputs=2))
    assert found.value == pytest.approx(0.5, abs=0.03)
    one = {on: (each[:, 0] > 0).long() for on, each in x.items()}
    assert first(name, case(one, x, x, task="binary", outputs=1)).value > 0.93


@pytest.mark.parametrize("name", ["linear_probe", "nearest_probe"])
def test_of_a_regression_it_is_the_share_of_variance_explained(name: str) -> None:
    x = {on: normal(n, 2, seed=n) for on, n in {"forget": 300, "test": 301}.items()}
    line = {on: 50 + 9 * each.sum(1) for on, each in x.items()}
    noise = {on: normal(len(each), seed=3 + len(each)) for on, each in x.items()}
    assert first(name, case(line, x, x, task="regression", outputs=1)).value > (0.99 if name == "linear_probe" else 0.6)
    assert first(name, case(noise, x, x, task="regression", outputs=1)).value < 0.05


# --- nearest neighbours


def test_the_nearest_rows_are_those_of_scikit_learn() -> None:
    y, x = blobs({"forget": 60, "test": 90}, 2.0)
    theirs = KNeighborsClassifier(5, metric="cosine").fit(x["test"], y["test"]).predict(x["forget"])
    found = first("nearest_probe", case(y, x, x))
    assert found.value == pytest.approx((theirs == y["forget"].numpy()).mean())
    assert 0 < found.value < 1


def test_of_many_rows_a_stated_number_is_taken() -> None:
    y, x = blobs({"forget": 2500, "test": 3000}, 0.1)
    found = first("nearest_probe", case(y, x, x))
    assert found.rows == 834  # every third
    assert found.value == 1


# --- models, passed over


class Shallow(nn.Module):
    """Convolutions alone: there is no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(1, 4, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.filter(x[:, None]).flatten(1)
        return out


def net(seed: int = 0, width: int = 8) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 4))


def passed(original: nn.Module, *models: nn.Module | Mapping[str, nn.Module], classes: tuple[int, ...] = (),
           rows: Mapping[str, int] = ROWS, **given: Any) -> Case:  # fmt: skip
    """The case of an original, an outcome, and references after it."""
    y, x = blobs(rows, 1.0)
    problem = Problem(original, **{"task": "classification", **given}, **{on: (x[on], y[on]) for on in rows})
    kinds: list[Kind] = ["outcome", *["reference"] * len(models)]  # type: ignore[list-item]
    nets = [each if isinstance(each, Mapping) else {"model": each} for each in models]
    subjects = [Subject(f"model {i}", kind, each) for i, (kind, each) in enumerate(zip(kinds, nets, strict=False))]
    return gather(problem, [*subjects, Subject("original", "original", {"model": original})], classes)


@pytest.mark.parametrize("name", ["linear_probe", "nearest_probe", "recovery", "cka", "cka_forget"])
def test_a_masked_output_has_the_features_of_the_original(name: str) -> None:
    original = net()
    found = measured(name, passed(original, mask({"model": original}, [3]), net(1), net(2))).values
    assert found["model 0"].value == found["original"].value


@pytest.mark.parametrize("name", ["linear_probe", "nearest_probe", "recovery", "cka", "cka_original"])
def test_without_a_linear_layer_there_are_no_features(name: str) -> None:
    assert "has no linear layer" in why(name, passed(Shallow(), Shallow(), Shallow()))


# --- recovery


def test_what_stands_behind_a_rotation_comes_back() -> None:
    original, hidden = net(), net()
    turn = torch.linalg.qr(normal(8, 8)).Q
    with torch.no_grad():
        hidden[2].weight.copy_(turn @ hidden[2].weight)
        hidden[2].bias.copy_(turn @ hidden[2].bias)
        hidden[3].weight.zero_()
    of = passed(original, hidden, net(1))
    found = measured("recovery", of).values
    assert found["original"].value == pytest.approx(float(of.original["forget"].quality.mean()))
    assert found["model 0"].value == pytest.approx(found["original"].value, abs=0.01)
    assert found["model 0"].value != pytest.approx(float(of.outcome["forget"].quality.mean()), abs=0.02)


def test_features_drawn_to_a_point_bring_nothing_back() -> None:
    contracted = net()
    with torch.no_grad():
        contracted[2].weight.zero_()
    of = passed(net(), contracted)
    assert len(torch.unique(of.outcome["forget"].features, dim=0)) == 1  # type: ignore[arg-type]
    rights = [float((of.targets["forget"] == c).double().mean()) for c in range(4)]
    assert any(first("recovery", of).value == pytest.approx(right) for right in rights)


def test_of_one_class_alone_it_says_nothing() -> None:
    assert "one class alone goes" in why("recovery", passed(net(), net(1), classes=(3,)))


def test_recovery_needs_a_last_layer_that_gives_the_outputs() -> None:
    words = "not one linear layer that gives the model's outputs"
    assert words in why("recovery", passed(net(), net(1), features="2"))
    assert words in why("recovery", passed(nn.Sequential(net(), nn.Softmax(1)), nn.Sequential(net(1), nn.Softmax(1))))
    line = passed(nn.Linear(6, 1), nn.Linear(6, 1), task="regression")
    assert "names no class" in why("recovery", line)


# --- CKA


def by_gram(x: Tensor, y: Tensor) -> float:
    """As the card has it."""
    middle = torch.eye(len(x), dtype=torch.double) - 1 / len(x)
    k, m = (middle @ (each.double() @ each.double().T) @ middle for each in (x, y))
    return float((k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt())


@given(st.integers(2, 12), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_both_forms_are_that_of_the_card(n: int, d: int, e: int, seed: int) -> None:
    x, y = normal(n, d, seed=seed), normal(n, e, seed=seed + 100)
    assert similarity(x, y) == pytest.approx(by_gram(x, y), abs=1e-9)
    assert similarity(x, y) == pytest.approx(similarity(y, x), abs=1e-12)
    assert 0 <= similarity(x, y) <= 1 + 1e-12


@settings(max_examples=50)
@given(st.integers(3, 30), st.integers(1, 20), st.floats(0.01, 100), st.integers(0, 99))
def test_rotation_scale_and_shift_change_nothing(n: int, d: int, scale: float, seed: int) -> None:
    x, y = normal(n, d, seed=seed), normal(n, 4, seed=seed + 100)
    turned = scale * x @ torch.linalg.qr(normal(d, d, seed=seed)).Q + normal(d, seed=seed)
    assert similarity(x, x) == pytest.approx(1, abs=1e-5)
    assert similarity(x, turned) == pytest.approx(1, abs=1e-5)
    assert similarity(turned, y) == pytest.approx(similarity(x, y), abs=1e-5)


def test_cka_by_hand() -> None:
    x, y = torch.tensor([[1.0], [-1], [0]]), torch.tensor([[1.0], [0], [-1]])
    assert similarity(x, y) == pytest.approx(0.25)  # the squared correlation, (1 / 2)^2
    assert similarity(x, torch.cat([y, 5 + 0 * y], 1)) == pytest.approx(0.25)


def test_what_does_not_vary_is_like_nothing() -> None:
    flat = torch.full((9, 3), 0.1)
    assert similarity(flat, normal(9, 3)) == similarity(flat, flat) == 0


def test_alike_is_the_mean_over_the_references_and_has_a_value_for_every_layer() -> None:
    of = passed(net(), net(1), net(), net(2))
    value = measured("cka", of).values["model 0"]
    mine, *theirs = (look["test"].features for look in (of.outcome, *of.references))
    assert value.value == pytest.approx(np.mean([similarity(mine, each) for each in theirs]))  # type: ignore[arg-type]
    assert value.rows == 700
    assert [name for name, _ in value.curve] == ["0", "2", "3"]
    assert dict(value.curve)["2"] == pytest.approx(value.value)  # no activation is between this layer and the last


def test_a_copy_of_the_original_is_as_far_from_the_references_as_the_original() -> None:
    of = passed(net(), net(1), net(), net(2))  # the first reference is a copy
    alone, mean = measured("cka_original", of).values, measured("cka_forget", of).values["original"]
    assert alone["model 1"].value == pytest.approx(1)
    assert mean.value == pytest.approx((1 + alone["model 2"].value) / 2)
    assert alone["model 1"].note == "forget rows"
    assert "original" not in alone


def test_layers_that_not_all_have_are_left_out() -> None:
    found = first(
        "cka", passed(net(), net(), net(1), nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Tanh(), nn.Linear(3, 4)))
    )
    assert [name for name, _ in found.curve] == ["0", "3"]


def test_few_rows_are_too_few_for_cka() -> None:
    few = passed(net(), net(), net(1), net(2), rows={"forget": 40, "test": 600})
    assert "40 forget rows are too few" in why("cka_forget", few)
    assert first("cka_original", few).note == "test rows"
    assert "40 test rows are too few" in why(
        "cka", passed(net(), net(), net(1), net(2), rows={"forget": 600, "test": 40})
    )


def test_without_references_there_is_nothing_to_be_alike() -> None:
    for name in ("cka", "cka_forget", "uuef"):
        assert "no other reference" in why(name, passed(net(), net(1)))


# --- the protocol


def right(n: int, share: float) -> Tensor:
    return (torch.arange(n) < round(share * n)).float()


def test_the_protocol_by_hand() -> None:
    y, x = blobs({"forget": 1000, "retain": 1000, "test": 1000}, 0.1)
    shares = {0: (0.1, 0.9), 1: (1, 1), 2: (0, 1), 3: (0.2, 1)}
    hits = {}
    for i, (gone, stays) in shares.items():
        hits |= {f"forget {i}": right(1000, gone), f"retain {i}": right(1000, stays)}
        hits[f"test {i}"] = torch.where(y["test"] == 0, float(gone > 0.5), stays)
    y["forget"] = torch.zeros(1000, dtype=torch.long)
    x["forget"] = x["test"].flip(0)
    of = case(y, x, x, x, x, classes=(0,), right=hits)
    found = measured("uuef", of).values
    # the gaps of the first: 0 on forgotten rows, 0.1 on retained ones, 0 and 0.1 on test rows; none of features
    assert found["model 0"].value == pytest.approx(harmonic_mean([0.9 * 0.9, 1]))
    assert found["model 1"].value == pytest.approx(harmonic_mean([0.1 * 0, 1]))
    assert found["model 2"].value == pytest.approx(harmonic_mean([0.8, 1]))
    assert found["model 2"].note == "outputs 0.800, features 1.000"


def test_the_protocol_sees_features_where_outputs_agree() -> None:
    original = net()
    gone = passed(original, mask({"model": original}, [3]), net(1), net(2), classes=(3,),
                  rows={"forget": 600, "retain": 600, "test": 700})  # fmt: skip
    assert float(first("uuef", gone).note.rpartition(" ")[2]) < 0.9


def test_the_protocol_is_about_classes() -> None:
    assert "no class goes entirely" in why("uuef", passed(net(), net(1), net(2)))
