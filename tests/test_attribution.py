"""Attribution: the regression against known effects, its sign and size end to end, DMM's targets, and KLOM."""

from __future__ import annotations

from math import log

import pytest
import torch
from small import problem, state
from torch import Tensor, nn

from oblivio import methods, records
from oblivio.claims.dmm import klom
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.methods.unlearning.attribution.dmm import MATCHED, predict_outputs
from oblivio.records.attribution import Ensemble, effect, solved, trained_on
from oblivio.tasks.regression import Regression


def known(models: int = 200, rows: int = 12, outputs: int = 3, noise: float = 0.0) -> tuple[dict[str, object], Tensor]:
    """A record of models whose outputs are sums of effects (rows i, rows x, outputs) of the rows they have."""
    g = torch.Generator().manual_seed(0)
    effects = torch.randn(rows, rows, outputs, generator=g)
    masks = torch.rand(models, rows, generator=g) < 0.5
    out = 7 + torch.einsum("ki,ixc->kxc", masks.float(), effects)
    out = out + noise * torch.randn(out.shape, generator=g)
    return {"ids": [str(3 * i) for i in range(rows)], "masks": masks, "values": solved(masks, out)}, effects


def test_known_effects_are_found_with_their_sign_and_size() -> None:
    record, effects = known()
    found = effect(record, [0, 6, 33], [3, 0])
    assert torch.allclose(found, effects[[0, 2, 11]].sum(0)[[1, 0]], atol=0.05)


def test_the_ridge_grows_with_the_noise() -> None:
    record, effects = known(models=30, noise=20.0)
    assert effect(record, [0], range(0, 36, 3)).norm() < effects[0].norm()  # shrunk towards no effect


def test_unknown_ids_are_named() -> None:
    record, _ = known()
    with pytest.raises(BadInput, match=r"knows no rows with the ids \['1'\]"):
        effect(record, [1], [0])


def linear(n: int = 24) -> Problem:
    """A linear regression with two rows far off the line, trained to the end; ``forget`` holds these."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 2, generator=g)
    y = x @ torch.tensor([1.0, -2.0]) + 0.5
    y[:2] += 6.0
    ids = list(range(n))
    rows = {"forget": slice(0, 2), "retain": slice(2, n), "train": slice(0, n)}
    sources = {name: (x[at], y[at], ids[at]) for name, at in rows.items()}
    of = Problem(nn.Linear(2, 1), task=Regression(), **sources)
    ensemble = trained_on(torch.ones(1, n, dtype=torch.bool), of, epochs=150, lr=0.05, batch=n, seed=1)
    of.nets["model"] = ensemble.member(0)
    return of


def test_a_linear_model_without_rows_is_predicted() -> None:
    of = linear()
    of.records["attribution"] = records.make("attribution", of, models=150, epochs=150, lr=0.05, batch=24)
    kept = of.source("retain").batch(torch.arange(22))
    a = torch.cat([kept["x"], torch.ones(22, 1)], 1)
    exact = torch.linalg.lstsq(a, kept["y"][:, None]).solution  # a model trained without the two rows
    gone = of.source("forget").batch(torch.arange(2))["x"]
    expected, now = torch.cat([gone, torch.ones(2, 1)], 1) @ exact, of.predict("forget")
    change = effect(of.records["attribution"], [0, 1], [0, 1])
    # a row weighs twice as much among half of the rows, so kappa is that half
    assert (now - 0.5 * change - expected).norm() < 0.1 * (now - expected).norm()
    done = Run(methods.dmm(kappa=0.5, epochs=100, lr=0.1, multiplier=5), of).go()
    assert (done.predict("forget") - expected).norm() < 0.3 * (now - expected).norm()


def test_members_of_an_ensemble_are_models_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))
    ensemble = Ensemble(model, 3, seed=0)
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = ensemble.eval()(x)
        assert out.shape == (8, 3, 4)
        assert not torch.allclose(out[:, 0], out[:, 1])
        assert all(torch.allclose(ensemble.member(i)(x), out[:, i], atol=1e-5) for i in range(3))


def test_a_model_learns_the_rows_of_its_mask_alone() -> None:
    of = problem(train=(torch.eye(6), torch.tensor([0, 1, 2, 3, 0, 1])))
    masks = torch.tensor([[True] * 3 + [False] * 3, [False] * 3 + [True] * 3])
    ensemble = trained_on(masks, of, epochs=200, lr=0.05, batch=6, seed=0)
    with torch.no_grad():
        right = ensemble(torch.eye(6)).argmax(2) == torch.tensor([0, 1, 2, 3, 0, 1])[:, None]
    assert bool(right.T[masks].all())
    assert not bool(right.T[~masks].all())


def test_targets_are_the_outputs_less_the_effect_and_the_sample_is_fixed() -> None:
    def asked() -> Problem:
        of = problem(forget=(torch.zeros(2, 6), torch.zeros(2).long(), [0, 3]),
                     retain=(torch.ones(10, 6), torch.ones(10).long(), list(range(6, 36, 3))), n=0)  # fmt: skip
        of.records["attribution"] = known(outputs=4)[0]
        return of

    of, again = (Run(predict_outputs(0.5, 3.0), asked()).go() for _ in range(2))
    batch = of.source(MATCHED).batch(torch.arange(8))  # two rows and three times as many
    assert len(of.source(MATCHED)) == 8
    assert torch.equal(batch["x"].sum(1), torch.tensor([0.0, 0] + [6] * 6))
    expected = of.predict("forget") - 0.5 * effect(of.records["attribution"], [0, 3], [0, 3])
    assert torch.allclose(batch["target"][:2], expected, atol=1e-6)
    assert torch.equal(batch["target"], again.source(MATCHED).batch(torch.arange(8))["target"])


def test_without_the_record_nothing_moves() -> None:
    of = problem()
    before = state(of)
    with pytest.raises(BadInput, match="needs the record 'attribution'"):
        Run(methods.dmm(), of).go()
    assert all(torch.equal(v, before[n]) for n, v in state(of).items())


def test_klom_of_equal_and_of_apart_margins() -> None:
    same = torch.linspace(-1, 1, 40)[:, None]
    assert klom(same, same).item() == pytest.approx(0)
    assert klom(torch.zeros(5, 2), torch.zeros(5, 2)).tolist() == [0, 0]
    assert klom(torch.zeros(5, 1), torch.full((5, 1), 9.0)).item() == pytest.approx(-log(1e-5))
    half = torch.tensor([[0.0], [1.0]])
    assert klom(half, torch.tensor([[0.0], [0.0], [0.0], [1.0]])).item() == pytest.approx(
        0.5 * log(0.5 / 0.75) + 0.5 * log(0.5 / 0.25)
    )
