"""The exact diagonal Fisher against a loop over rows, for every kind of layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small import flat, problem, rows, state
from torch import Tensor, nn

from oblivio.core.grads import Grads
from oblivio.core.importance import fisher
from oblivio.core.problem import Problem


class Scale(nn.Module):
    """A layer that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor([1.0, 0.5, 2.0, -1.0, 0.3]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


class Twice(nn.Module):
    """A layer that is used twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.square, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.square(self.square(self.first(x).tanh()).tanh()))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.back, self.head = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 4)
        self.back.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x) + self.back(x.flip(1)).tanh())


def lived(norm: nn.Module) -> nn.Module:
    """Statistics and scales as training leaves them."""
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5)
    return norm


def conv(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Unflatten(1, (2, 6, 6)), *layers, nn.Flatten(), nn.LazyLinear(4))


VECTORS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4, bias=False)),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 5), lived(nn.BatchNorm1d(5)), nn.ReLU(), nn.Linear(5, 4)),
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 5), lived(nn.LayerNorm(5)), nn.Linear(5, 4)),
    "layer norm of a sequence": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.Linear(2, 5), lived(nn.LayerNorm(5)), nn.Flatten(), nn.Linear(15, 4)),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 4)),
    "no rule": lambda: nn.Sequential(nn.Linear(6, 5), Scale(), nn.Tanh(), nn.Linear(5, 4)),
    "used twice": Twice,
    "tied": Tied,
}  # fmt: skip
PICTURES: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: conv(nn.Conv2d(2, 3, 3), nn.ReLU()),
    "stride, padding, dilation": lambda: conv(nn.Conv2d(2, 3, 3, stride=2, padding=(2, 1), dilation=(1, 2)), nn.ReLU()),
    "no bias, then batch norm": lambda: conv(nn.Conv2d(2, 3, 3, bias=False), lived(nn.BatchNorm2d(3)), nn.ReLU()),
    "groups": lambda: conv(nn.Conv2d(2, 4, 3, groups=2), nn.Tanh()),
    "same padding": lambda: conv(nn.Conv2d(2, 3, 3, padding="same"), nn.Tanh()),
    "circular padding": lambda: conv(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Tanh()),
    "layer norm over a plane": lambda: conv(nn.Conv2d(2, 3, 3), lived(nn.LayerNorm((4, 4)))),
}  # fmt: skip


def given(name: str) -> Problem:
    torch.manual_seed(0)
    if name in VECTORS:
        return problem(VECTORS[name], n=11)
    model, sets = PICTURES[name](), {"forget": rows(11, 72), "retain": rows(5, 72, seed=1)}
    model(sets["forget"][0])  # the lazy layer learns its size
    return Problem(model, **sets)


def row_by_row(of: Problem, names: list[str]) -> Grads:
    of.model.eval()
    weights = [of.weights()[n] for n in names]
    total = [torch.zeros_like(w) for w in weights]
    for batch in of.source("forget").batches(1):
        gradients = torch.autograd.grad(of.task.each(of.model(batch["x"]), batch).sum(), weights)
        for t, g in zip(total, gradients, strict=True):
            t += g.square() / 11
    return dict(zip(names, total, strict=True))


@pytest.mark.parametrize("name", [*VECTORS, *PICTURES])
def test_fisher_is_the_mean_of_squares_of_every_row(name: str) -> None:
    of = given(name)
    got = fisher(of, "forget", size=4)
    expected = row_by_row(of, list(of.weights()))
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-4, atol=1e-7, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", ["mlp", "no rule", "no bias, then batch norm"])
def test_the_rows_of_a_pass_do_not_matter(name: str) -> None:
    of = given(name)
    few, all_at_once = (flat(fisher(of, "forget", size=size)) for size in (3, 64))
    torch.testing.assert_close(few, all_at_once, rtol=1e-4, atol=1e-7)


def test_it_is_additive_over_sets_of_rows() -> None:
    """True of squares of every row's gradient, and of no square of a mean."""
    of = given("mlp")
    parts = [of.source("forget").take(torch.arange(a, b)) for a, b in ((0, 4), (4, 11))]
    first, second = (flat(fisher(of, part)) for part in parts)
    torch.testing.assert_close((4 * first + 7 * second) / 11, flat(fisher(of, "forget")), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("pattern", ["*.0.*", "*.bias", "*.2.weight"])
def test_only_what_is_asked_for_is_computed(pattern: str) -> None:
    of = given("mlp")
    got = fisher(of, "forget", where=pattern)
    assert set(got) == set(of.weights(pattern))
    whole = fisher(of, "forget")
    for key, value in got.items():
        torch.testing.assert_close(value, whole[key])


@pytest.mark.parametrize("name", ["batch norm", "dropout", "tied", "no rule"])
def test_nothing_is_moved(name: str) -> None:
    of = given(name)
    of.model.train()
    next(iter(of.weights().values())).requires_grad_(False)
    before, flags = state(of), [p.requires_grad for p in of.model.parameters()]
    random = torch.get_rng_state()
    fisher(of, "forget")
    assert all(torch.equal(v, before[k]) for k, v in state(of).items())
    assert all(m.training for m in of.model.modules())
    assert [p.requires_grad for p in of.model.parameters()] == flags
    assert all(p.grad is None for p in of.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
