"""LoReUn's static weights: from the start's losses, of mean one, and the same at every step."""

from __future__ import annotations

import pytest
import torch
from small import moved, problem, step

from oblivio import methods, terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.run import Run


def test_static_weights_are_of_the_start_and_have_mean_one() -> None:
    of, weigh = problem(), terms.memorised_at_start(tau=0.5)
    of.keep("start")
    loss = of.task.each(of.predict("forget"), of.source("forget").batch(torch.arange(12)))
    expected = 12 * torch.softmax(-loss / 0.5, 0)
    with moved(of, {n: torch.randn_like(w) for n, w in of.weights().items()}, 1.0):
        now = step(of)
        got, rows = weigh(now, "forget"), now.batch("forget").rows
        assert not torch.allclose(terms.memorised(0.5)(now, "forget"), expected[rows], rtol=1e-3)
    assert torch.allclose(got, expected[rows], rtol=1e-5)
    assert float(got.mean()) == pytest.approx(1)


def test_static_weights_are_by_place_and_can_be_chunked() -> None:
    def end(chunk: int | None) -> torch.Tensor:
        plan = Descent(terms.fit("forget").weighted(terms.memorised_at_start(0.5)), opt=sgd(0.1), epochs=2, batch=5,
                       chunk=chunk)  # fmt: skip
        return Run(plan, problem()).go().predict("forget")

    assert torch.allclose(end(None), end(2), atol=1e-6)
    plain = Run(Descent(terms.fit("forget"), opt=sgd(0.1), epochs=2, batch=5), problem()).go().predict("forget")
    assert not torch.allclose(end(None), plain, atol=1e-3)


def test_a_large_tau_gives_the_host() -> None:
    host = methods.relabel()
    ends = [
        Run(plan, problem()).go().predict("retain") for plan in (host, methods.loreun(tau=1e9, variant="static")(host))
    ]
    assert torch.allclose(*ends, atol=1e-5)
