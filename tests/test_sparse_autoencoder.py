"""The sparse autoencoder and the Wrap that suppresses its features, on a CNN, a ViT and a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from oblivio import methods
from oblivio.contracts.problems import TABLE
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.surgery import replay
from oblivio.methods.unlearning.language.sauce import activity, choose, counted, layer_of
from oblivio.modules.sparse_autoencoder import SparseAutoencoder, Suppressed, host_autoencoder, hosted
from oblivio.networks import build
from oblivio.networks.language import open_model, save_model, word_tokenizer
from oblivio.sources import as_source
from oblivio.sources.tokens import Tokens

FEW: dict[str, Any] = {"ratio": 4, "active": 4, "K": 2, "steps": 20, "batch": 32}


def small(active: int = 2) -> SparseAutoencoder:
    """Two entries, three features along (1, 0), (0, 1) and (-1, 0)."""
    made = SparseAutoencoder(2, 3, active, seed=0)
    with torch.no_grad():
        made.encoder.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        made.decoder.copy_(2 * made.encoder)  # only their directions count
    return made


def test_features_and_reconstruction_by_hand() -> None:
    made = small()
    x = torch.tensor([[3.0, 1.0], [-2.0, 5.0]])
    assert made.encode(x).tolist() == [[3.0, 1.0, 0.0], [0.0, 5.0, 2.0]]
    assert made.decode(made.encode(x)).tolist() == x.tolist()
    assert made.error(x).tolist() == [0.0, 0.0]


def test_only_the_largest_stay() -> None:
    made = small(active=1)
    x = torch.tensor([[3.0, 1.0]])
    assert made.encode(x).tolist() == [[3.0, 0.0, 0.0]]
    assert made.error(x).tolist() == [0.5]  # (0 + 1) / 2


def test_mean_spread_and_centre() -> None:
    made = small()
    made.fit(torch.tensor([[10.0, 20.0], [14.0, 24.0]]))
    assert made.mean.tolist() == [12.0, 22.0]
    assert float(made.spread) == 2.0
    with torch.no_grad():
        made.centre.copy_(torch.tensor([0.5, 0.0]))
    x = torch.tensor([[15.0, 24.0]])  # in units: (1.5, 1) - (0.5, 0)
    assert made.encode(x).tolist() == [[1.0, 1.0, 0.0]]
    assert made.decode(made.encode(x)).tolist() == [[2.0, 2.0]]
    assert made.error(x).tolist() == [0.0]


def test_equal_activations_have_a_spread_of_one() -> None:
    made = small()
    made.fit(torch.ones(4, 2))
    assert float(made.spread) == 1.0


@given(st.integers(0, 10**6), st.integers(1, 8))
def test_never_more_active_than_asked_for(seed: int, active: int) -> None:
    made = SparseAutoencoder(5, 8, active, seed)
    z = made.encode(torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(seed)))
    assert z.shape == (7, 3, 8)
    assert bool((z >= 0).all())
    assert int((z > 0).sum(-1).max()) <= active


def wrapped(factors: list[float], c: int = 2) -> Suppressed:
    wrap = Suppressed(nn.Sequential(nn.Identity()), "0", 2, 3, c, 0)
    wrap.autoencoder = small(c)
    wrap.factors.copy_(torch.tensor(factors))
    return wrap


def test_only_the_difference_is_added() -> None:
    x = torch.tensor([[3.0, 1.0]])
    assert wrapped([1.0, 1.0, 1.0], 1)(x).tolist() == x.tolist()  # the rest of the reconstruction is no matter
    assert wrapped([0.0, 1.0, 1.0])(x).tolist() == [[0.0, 1.0]]
    assert wrapped([-1.0, 1.0, 1.0])(x).tolist() == [[-3.0, 1.0]]


def test_maps_are_changed_by_their_channels() -> None:
    x = torch.tensor([[3.0, 1.0], [5.0, 2.0]]).T.reshape(1, 2, 1, 2)
    assert wrapped([0.0, 1.0, 1.0])(x).flatten(2)[0].T.tolist() == [[0.0, 1.0], [0.0, 2.0]]


def test_no_hook_stays_behind() -> None:
    wrap = wrapped([0.0, 1.0, 1.0])
    x = torch.tensor([[3.0, 1.0]])
    wrap(x)
    assert wrap.net(x).tolist() == x.tolist()


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(72, 2))


def bright(n: int = 40) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def problem_of(model: nn.Module) -> Problem:
    x = bright()
    y = torch.arange(len(x)) % 2
    return Problem(model, task="classification", forget={"x": x[y == 1], "y": y[y == 1]},
                   retain={"x": x[y == 0], "y": y[y == 0]})  # fmt: skip


@pytest.mark.parametrize("layer", ["2", "features"])
def test_a_cnn_keeps_its_weights(layer: str) -> None:
    torch.manual_seed(0)
    given = problem_of(conv())
    before = {n: p.clone() for n, p in given.model.named_parameters()}
    done = Run(methods.sauce(layer=layer, **FEW), given.copy()).go()
    wrap = hosted(done.nets)
    assert all(torch.equal(p, before[n]) for n, p in wrap.net.named_parameters())
    assert int((wrap.factors == -1).sum()) == 2
    assert not wrap.deletes
    assert not torch.equal(done.predict("forget"), given.predict("forget"))


def test_a_vision_transformer() -> None:
    torch.manual_seed(0)
    given = problem_of(build("vit-tiny", (1, 8, 8), 2, width=8, depth=2, heads=2, patch=4))
    done = Run(methods.sauce(layer="blocks.1", **FEW), given.copy()).go()
    assert hosted(done.nets).autoencoder.encoder.shape == (32, 8)
    assert not torch.equal(done.predict("forget"), given.predict("forget"))


def test_training_explains_more() -> None:
    torch.manual_seed(0)
    done = Run(methods.sauce(layer="2", **{**FEW, "steps": 100}), problem_of(conv())).go()
    autoencoder, x = hosted(done.nets).autoencoder, done.source("activations").batch(torch.arange(200))["activation"]
    fresh = SparseAutoencoder(4, 16, 4, seed=5)
    fresh.fit(x)
    with torch.no_grad():
        assert float(autoencoder.error(x).mean()) < 0.5 * float(fresh.error(x).mean())


def test_a_second_request_stands_on_the_first() -> None:
    torch.manual_seed(0)
    first = Run(methods.sauce(layer="2", **FEW), problem_of(conv())).go()
    second = Run(methods.sauce(layer="features", **FEW), first.copy()).go()
    outer = hosted(second.nets)
    assert isinstance(outer.net, Suppressed)
    assert torch.equal(outer.net.factors, hosted(first.nets).factors)


# --- language models


def language() -> Problem:
    return TABLE["texts"].problem()


def test_a_language_model_generates_with_the_features_down() -> None:
    given = language()
    done = Run(methods.sauce(layer="model.layers.1", **{**FEW, "K": 16}), given.copy()).go()
    x = given.source("forget").batch(torch.arange(4))["x"][:, :2]
    plain, wrap = given.model, hosted(done.nets)
    settings = {"max_new_tokens": 1, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(x)}
    written = wrap.generate(input_ids=x, **settings)[:, -1]
    with torch.no_grad():
        assert torch.equal(written, wrap(input_ids=x).logits[:, -1].argmax(1))
        changed = wrap(input_ids=x).logits - plain(input_ids=x).logits
    assert float(changed.abs().max()) > 0.01
    assert float(done.qualities("forget")["served"].mean()) < float(given.qualities("forget")["served"].mean())


def test_a_language_model_is_saved_and_opened(tmp_path: Path) -> None:
    given = language()
    done = Run(methods.sauce(layer="model.layers.1", **FEW), given.copy()).go()
    tokenizer = word_tokenizer([" ".join(f"w{i}" for i in range(20))])
    save_model(tmp_path / "model", done.model, tokenizer, journal=done.journal)
    opened, _ = open_model(tmp_path / "model")
    x = given.source("forget").batch(torch.arange(4))["x"]
    with torch.no_grad():
        torch.testing.assert_close(opened(input_ids=x).logits, done.model(input_ids=x).logits)  # another attention


def test_padding_and_prompts_do_not_count() -> None:
    rows = Tokens([[3, 4, 5, 1], [3, 4, 5, 6, 1]], [2, 4], pad=0)
    batch = rows.batch(torch.arange(2))
    places = counted(batch, torch.zeros(2, 5, 7))
    assert places.tolist() == [[False, True, True, False, False], [False, False, False, True, False]]
    assert bool(counted(batch, torch.zeros(2, 9, 7)).all())  # places that no token stands at


def test_all_places_of_rows_with_one_target_count() -> None:
    batch = as_source({"x": torch.zeros(3, 4), "y": torch.zeros(3, dtype=torch.long)}).batch(torch.arange(3))
    assert counted(batch, torch.zeros(3, 6, 4)).shape == (3, 6)
    assert bool(counted(batch, torch.zeros(3, 1, 4)).all())


# --- choosing


class Same(nn.Module):
    """A layer whose input are the rows, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)  # type: ignore[no-any-return]


def chosen(K: int, concepts: str = "") -> list[float]:
    forget = {"x": torch.tensor([[4.0, 1.0], [-6.0, 1.0]]), "y": torch.tensor([0, 1])}
    problem = Problem(Same(), task="classification", forget=forget, retain={"x": torch.tensor([[0.0, 9.0]]), "y": [2]})
    problem.operate(host_autoencoder, layer="head", width=2, size=3, active=2, seed=0)
    hosted(problem.nets).autoencoder = small()
    assert {k: v.tolist() for k, v in activity(problem, "forget").items()} == {"0": [2.0, 1.0, 3.0]}
    Run(choose(K, 0.5, concepts), problem).go()
    return hosted(problem.nets).factors.tolist()


def test_the_most_specific_features_are_chosen() -> None:
    assert chosen(1) == [1.0, 1.0, -0.5]
    assert chosen(2) == [-0.5, 1.0, -0.5]


def test_each_concept_has_features_of_its_own() -> None:
    assert chosen(1, "y") == [-0.5, 1.0, -0.5]


def test_what_is_not_active_is_not_chosen() -> None:
    assert chosen(3, "y") == [-0.5, -0.5, -0.5]
    forget = {"x": torch.tensor([[4.0, 0.0]]), "y": torch.tensor([0])}
    problem = Problem(Same(), task="classification", forget=forget, retain={"x": torch.tensor([[0.0, 9.0]]), "y": [2]})
    problem.operate(host_autoencoder, layer="head", width=2, size=3, active=2, seed=0)
    hosted(problem.nets).autoencoder = small()
    Run(choose(3, 1.0, ""), problem).go()
    assert hosted(problem.nets).factors.tolist() == [-1.0, 1.0, 1.0]


# --- the journal, and bad input


def test_the_journal_rebuilds_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = problem_of(conv())
    done = Run(methods.sauce(layer="2", **FEW), given.copy()).go()
    nets = nn.ModuleDict({"model": given.copy().model})
    replay(nets, done.journal)
    nets.load_state_dict(dict(done.nets.state_dict().items()))
    x = bright(4)
    assert torch.equal(nets["model"](x), done.model(x))


def test_layers_that_cannot_be() -> None:
    with pytest.raises(BadInput, match="did you mean|no layer 'heads'"):
        layer_of(problem_of(Same()), "heads")
    with pytest.raises(BadInput, match="has no layer"):
        Run(methods.sauce(layer="9", **FEW), problem_of(conv())).go()
    with pytest.raises(BadInput, match="only 8 features"):
        Run(methods.sauce(layer="2", **{**FEW, "ratio": 2, "active": 9}), problem_of(conv())).go()
    with pytest.raises(BadInput, match="takes activations"):
        Run(methods.sauce(layer="model.embed_tokens", **FEW), language()).go()
    with pytest.raises(BadInput, match="K"):
        methods.sauce(K=0)
