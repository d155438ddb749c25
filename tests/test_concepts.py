"""Poisoning by concepts: the bank, the sparse map, the confusing class, the labels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oblivio import methods
from oblivio.contracts import TABLE
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.methods.unlearning.relabelling.concept_poison_mu import (
    another,
    bank,
    confusing,
    features,
    influence,
    poisoned,
)


def scattered(n: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Three blobs in the plane, close enough together that no map tells them apart without error."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    centres = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-1.0, -1.0]])
    return centres[labels] + torch.randn(n, 2, generator=g), labels


def test_the_sparse_map_is_at_the_minimum_of_its_objective() -> None:
    values, labels = scattered()
    concepts, l1 = torch.eye(2), 0.05
    found = influence(concepts, values, labels, 3, l1).double()
    x = ((values - values.mean(0)) / values.std(0)).double()

    def objective(w: torch.Tensor) -> float:
        b = torch.zeros(3, dtype=torch.float64, requires_grad=True)  # the best bias for these weights
        best = torch.optim.LBFGS([b], max_iter=100, tolerance_grad=1e-12)

        def loss() -> torch.Tensor:
            best.zero_grad()
            value = F.cross_entropy(x @ w.T + b, labels)
            value.backward()
            return value

        best.step(loss)  # type: ignore[no-untyped-call]
        return float(F.cross_entropy(x @ w.T + b.detach(), labels) + l1 * (w.abs().sum() / 2 + w.square().sum() / 4))

    least, g = objective(found), torch.Generator().manual_seed(1)
    for _ in range(20):
        assert objective(found + 0.02 * torch.randn(3, 2, generator=g, dtype=torch.float64)) >= least


def test_a_strong_penalty_leaves_no_influence_and_a_weak_one_finds_each_direction() -> None:
    values, labels = scattered()
    assert not influence(torch.eye(2), values, labels, 3, 10.0).any()
    weak = influence(torch.eye(2), values, labels, 3, 0.01)
    assert int(weak[0].argmax()) == 0
    assert int(weak[1].argmax()) == 1


def test_concepts_are_directions_from_the_mean_to_the_centres() -> None:
    values = torch.tensor([[0.0, 0.0], [0.0, 0.2], [4.0, 0.0], [4.0, 0.2]])
    found, mean = bank(values, 2, seed=3)
    assert torch.allclose(mean, torch.tensor([2.0, 0.1]))
    assert sorted(found.round(decimals=4).tolist()) == [[-2.0, 0.0], [2.0, 0.0]]
    assert len(bank(values, 9, seed=3)[0]) == 4  # no more than rows


def test_the_confusing_class_overlaps_most_on_the_top_concepts() -> None:
    weights = torch.tensor([[3.0, 2.0, -5.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, -9.0]])
    assert confusing(weights, [0], [1, 2, 3], top=2) == {0: 2}  # 3, 4 and 0 on the first two concepts
    assert confusing(weights, [0], [1, 2, 3], top=1) == {0: 1}
    assert confusing(weights, [0], [1, 2, 3], top=9) == {0: 3}  # all concepts: the third now counts 45


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 99))
def test_a_random_label_is_another_class_that_stays(own: list[int], seed: int) -> None:
    drawn = another(torch.tensor(own), [1, 2, 4], torch.Generator().manual_seed(seed))
    assert all(d != o and d in (1, 2, 4) for d, o in zip(drawn.tolist(), own, strict=True))


def test_random_labels_reach_every_other_class_about_as_often() -> None:
    drawn = another(torch.full((9000,), 3), [0, 1, 2], torch.Generator().manual_seed(0))
    assert drawn.bincount().tolist() == pytest.approx([3000, 3000, 3000], rel=0.1)


def test_features_are_the_inputs_of_the_head_and_the_model_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.randn(5, 2)
    problem = Problem(model, task="classification", train={"x": x, "y": torch.tensor([0, 1, 0, 1, 1])})
    assert torch.allclose(features(problem, "train"), model[:2](x).detach())
    assert not model[2]._forward_pre_hooks


def test_the_class_goes_to_the_one_that_was_found() -> None:
    start = TABLE["digits"].problem()
    loss = poisoned("forget", "targeted", concepts=12, top=4, l1=0.01)
    loss.prepare(start)
    (to,) = set(loss.state["target"].tolist())
    assert to == loss.state["confusing"]["3"] != 3
    done = Run(methods.concept_poison_mu(epochs=20), start.copy()).go()
    assert float((done.predict("forget").argmax(1) == to).float().mean()) > 0.7


def test_one_class_that_stays_is_too_few() -> None:
    rows = {"x": torch.randn(4, 2), "y": torch.zeros(4, dtype=torch.long)}
    gone = {"x": torch.randn(2, 2), "y": torch.ones(2, dtype=torch.long)}
    problem = Problem(nn.Linear(2, 2), task="classification", forget=gone, retain=rows)
    with pytest.raises(BadInput, match="two or more"):
        Run(methods.concept_poison_mu(), problem).go()
