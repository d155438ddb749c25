"""Every registered method has every property; a new method is covered because it exists."""

from __future__ import annotations

import time

import pytest

from oblivio import contracts, methods, terms
from oblivio.contracts.check import _variants
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam, sgd
from oblivio.core.plan import Cycle, Stage

PAIRS = [pytest.param(m, t, id=f"{m}-{t.name}") for m in methods.names for t in contracts.problems_of(m)]
TIME = 0.5  # seconds a method and property, of this process
SEVERAL = {"smooth_unlearn"}  # five pieces under one name, each tried by itself: each has the time of a method


@pytest.mark.parametrize(("method", "tiny"), PAIRS)
def test_a_method_has_every_property(method: str, tiny: contracts.Tiny) -> None:
    tiny.problem()  # trained once, for all
    tried = len(contracts.PROPERTIES) * (len(_variants(methods.spec(method))) if method in SEVERAL else 1)
    assert any(checked(method, tiny) / tried < TIME for _ in range(2))  # others only slow it down


def checked(method: str, tiny: contracts.Tiny) -> float:
    """The seconds of this process that all properties take, once they hold."""
    start = time.process_time()
    assert list(map(str, contracts.check(method, on=tiny))) == []
    return time.process_time() - start


@pytest.mark.parametrize("tiny", contracts.TABLE)
def test_no_number_of_chunks_divides_the_forgotten_rows(tiny: str) -> None:
    gone = len(contracts.TABLE[tiny].problem().source("forget"))
    assert gone > 10
    assert all(gone % chunks for chunks in range(2, gone))


def test_every_method_is_tried() -> None:
    built = {name for name in methods.names if methods.spec(name).structure}  # over streams: test_stream_contracts
    assert {pair.values[0] for pair in PAIRS} == set(methods.names) - built
    assert all(methods.spec(name).kind == "continual" for name in built)


COMPOSED: dict[str, Stage] = {
    "every term": Descent(
        terms.npo("forget").weighted(terms.memorised()) + 0.5 * terms.distill("retain", temperature=2.0)
        + terms.sam(terms.fit("retain")) + 0.1 * terms.relabel("forget"), opt=adam(1e-3), over="forget", epochs=2),
    "two players": Cycle(
        Descent(terms.fit("retain"), opt=sgd(0.01, 0.9), steps=2),
        Descent(terms.npo("forget"), opt=adam(1e-3), steps=1), rounds=3),
    "pruned first": methods.l1_sparse(prune=0.5),
    "in chunks": Descent(terms.fit("retain") - 0.1 * terms.fit("forget"), opt=sgd(0.01, 0.9), steps=4, chunk=3),
}  # fmt: skip


@pytest.mark.parametrize("tiny", contracts.TABLE)
@pytest.mark.parametrize("plan", COMPOSED)
def test_a_composition_has_every_property(plan: str, tiny: str) -> None:
    assert list(map(str, contracts.check(COMPOSED[plan], on=tiny))) == []


def test_what_is_unknown_is_named_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'resumes'"):
        contracts.check("relabel", only="resume")
    with pytest.raises(BadInput, match="did you mean 'digits'"):
        contracts.check("relabel", on="digit")
