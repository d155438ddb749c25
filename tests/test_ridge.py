"""The closed-form head against NumPy, its numerical safety, and what the ridge learners keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import mlp, rows
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.learners import _head
from oblivio.learners._head import Head
from oblivio.learners._inputs import Features
from oblivio.learners.ridge import Ridge

ROWS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
TARGETS = torch.tensor([[1.0], [0.0], [2.0]], dtype=torch.float64)


def normal(n: int, m: int, seed: int = 0) -> Tensor:
    return torch.randn(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def solved(x: Tensor, t: Tensor, gamma: float) -> Tensor:
    return torch.from_numpy(np.linalg.solve((x.T @ x).numpy() + gamma * np.eye(x.shape[1]), (x.T @ t).numpy()))


def wide(x: Tensor) -> Tensor:
    """Sixteen columns, so that a row is added by an update and not by solving."""
    return torch.cat([x, torch.zeros(len(x), 14, dtype=x.dtype)], 1)


def test_the_head_is_what_is_worked_out_by_hand() -> None:
    head = Head.empty(16, 1, 1.0).added(wide(ROWS), TARGETS)
    # X'X + I = [[3, 1], [1, 6]], X'T = [3, 2]: W = [16/17, 3/17]
    assert torch.allclose(head.weights[:2, 0], torch.tensor([16.0, 3.0], dtype=torch.float64) / 17, atol=1e-14)
    less = head.removed(wide(ROWS[2:]), TARGETS[2:])
    # X'X + I = diag(2, 5), X'T = [1, 0]
    assert torch.allclose(less.weights[:2, 0], torch.tensor([0.5, 0.0], dtype=torch.float64), atol=1e-14)
    assert head.age == 1
    assert less.age == 2


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 40), seed=st.integers(0, 99), gamma=st.floats(0.01, 10), split=st.integers(1, 59))
def test_blocks_of_any_size_added_and_removed_equal_numpy(m: int, seed: int, gamma: float, split: int) -> None:
    x, t = normal(60, m, seed), normal(60, 3, seed + 1)
    head = Head.empty(m, 3, gamma)
    for part in (slice(0, split), slice(split, 60)):
        head = head.added(x[part], t[part])
    assert torch.allclose(head.weights, solved(x, t, gamma), atol=1e-9)
    head = head.removed(x[:split], t[:split])
    assert torch.allclose(head.weights, solved(x[split:], t[split:], gamma), atol=1e-9)
    assert torch.allclose(head.inverse @ head.gram, torch.eye(m, dtype=torch.float64), atol=1e-8)


def test_rows_that_were_never_added_are_refused_by_the_matrix_alone() -> None:
    head = Head.empty(16, 1, 1.0).added(normal(5, 16), normal(5, 1))
    for count in (1, 16):  # by the update, and by solving
        with pytest.raises(BadInput, match="never learned"):
            head.removed(9 * normal(count, 16, 7), normal(count, 1))


def test_a_stream_of_ten_thousand_updates_does_not_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small ridge and one row at a time: the update alone would drift by far more, which is measured too."""
    x, t, gamma = 3 * normal(40, 24), normal(40, 2), 1e-6

    def drift(refresh: int) -> float:
        monkeypatch.setattr(_head, "REFRESH", refresh)
        head = Head.empty(24, 2, gamma).added(x, t)
        for i in range(2000):
            row = slice(i % 40, i % 40 + 1)
            head = head.removed(x[row], t[row]).added(x[row], t[row])
        return float((head.weights - solved(x, t, gamma)).abs().max())

    assert drift(256) < 1e-8
    assert drift(10**9) > 0


def test_a_removal_that_would_lose_digits_is_solved_from_the_sums() -> None:
    """Without the only row in its direction, the pivot is gamma over gamma plus its square: next to nothing is left."""
    x, t = torch.eye(16, dtype=torch.float64) * 1e4, normal(16, 1)
    head = Head.empty(16, 1, 1e-3)
    for i in range(16):
        head = head.added(x[i : i + 1], t[i : i + 1])
    less = head.removed(x[:1], t[:1])
    assert less.age == 0
    assert torch.allclose(less.weights, solved(x[1:], t[1:], 1e-3), atol=1e-9)


# --- the learner


def test_classes_come_and_go() -> None:
    x, _ = rows(12, 6)
    y = torch.tensor([0, 1] * 3 + [4] * 6)
    learner = Ridge(nn.Identity())
    learner.learn((x[:6], y[:6], range(6)))
    assert learner.weights.shape == (6, 2)
    learner.learn((x[6:], y[6:], range(6, 12)))
    out = learner.predict(x)
    assert out.shape == (12, 5)
    assert torch.isinf(out[:, 2:4]).all()  # of 2 and 3 no row is known
    assert torch.isfinite(out[:, [0, 1, 4]]).all()
    learner.forget(range(6, 12))
    assert learner.weights.shape == (6, 2)
    learner.forget([0, 2, 4])
    assert (learner.weights[:, 0] == 0).all()
    assert (learner.predict(x).argmax(1) == 1).all()


def test_regression_has_a_column_a_target() -> None:
    x, _ = rows(30, 6)
    y = torch.stack([x @ torch.arange(6.0), x[:, 0]], 1)
    learner = Ridge(nn.Identity(), gamma=1e-9, task="regression")
    learner.learn((x, y))
    assert torch.allclose(learner.predict(x).float(), y, atol=1e-4)
    with pytest.raises(BadInput, match="columns"):
        learner.learn((x[:2], y[:2, :1], [100, 101]))


def test_without_kept_rows_they_are_given_again_and_compared() -> None:
    x, y = rows(12, 6)
    ids = [f"row {i}" for i in range(12)]
    learner = Ridge(nn.Identity(), keep=False)
    learner.learn((x, y, ids))
    with pytest.raises(BadInput, match="keeps none"):
        learner.forget(["row 3"])
    with pytest.raises(BadInput, match="1 of the ids are not among them, first .'row 3'."):
        learner.forget(["row 3"], (x[4:], y[4:], ids[4:]))
    for changed in ((x + 1e-6, y, ids), (x, 3 - y, ids)):
        with pytest.raises(BadInput, match="not what was learned by their id, first .'row 3'."):
            learner.forget(["row 3"], changed)
    learner.forget(["row 3"], (x, y, ids))  # the others in it are passed over
    assert len(learner.ids) == 11
    assert learner.kept == {}


@pytest.mark.parametrize(("y", "words"), [(torch.rand(4), "whole number"), (torch.tensor([0, 1, 2, -1]), "0 or more")])
def test_targets_that_do_not_suit_are_refused(y: Tensor, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Ridge(nn.Identity()).learn((torch.rand(4, 6), y))
    with pytest.raises(BadInput, match="x and y are needed"):
        Ridge(nn.Identity()).learn({"x": torch.rand(4, 6)})


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="multilabel.*no closed form"):
        Ridge(nn.Identity(), task="multilabel")
    with pytest.raises(BadInput, match="no layer 'haed'"):
        Ridge(nn.Identity(), features="haed")
    used = Ridge(nn.Identity(), folder=tmp_path)
    used.learn(rows(8, 6))
    with pytest.raises(BadInput, match="holds a learner already"):
        Ridge(nn.Identity(), folder=tmp_path)


def test_features_do_not_depend_on_the_rows_beside_them() -> None:
    """To 1e-12, and the encoder given is left alone."""
    net, (x, _) = mlp(), rows(64, 6)
    features = Features(net, "2", 20, seed=0)
    assert features(x).shape == (64, 20)
    alone = torch.cat([features(x[i : i + 1]) for i in range(64)])
    assert float((alone - features(x)).abs().max()) < 1e-12
    assert float(features(x).min()) == 0
    assert net[0].weight.dtype is torch.float32  # type: ignore[union-attr]
    hidden = net[1](net[0](x)).double()
    assert torch.allclose(Features(net, "2", None, seed=0)(x), hidden, atol=1e-6)


def test_random_transforms_are_refused() -> None:
    class Noisy(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 8

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return torch.rand(6), i % 2

    with pytest.raises(BadInput, match="gives different values"):
        Ridge(nn.Identity()).learn(Noisy())
