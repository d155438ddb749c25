"""The system of sticky noise and the attacks on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oblivio.audits.queries import Condition, Fresh, Sticky, best, cloning, differential, users
from oblivio.claims.diffix_attack import DUMMIES, table
from oblivio.core.errors import BadInput

TABLE = np.random.default_rng(0).integers(0, 3, (400, 4))
A, B, C = Condition(0, 1), Condition(1, 2), Condition(2, 0, "!=")


def test_users_meet_all_conditions() -> None:
    assert users(TABLE, [A, C]).tolist() == [row[0] == 1 and row[2] != 0 for row in TABLE.tolist()]
    assert users(TABLE, []).all()


def test_another_salt_gives_another_answer() -> None:
    assert Sticky(TABLE, 7).count([A]) != Sticky(TABLE, 8).count([A])
    assert Sticky(TABLE, 7).count([A]) == pytest.approx(
        134.63929424906962
    )  # in every process: no salted hash of the interpreter


@given(st.lists(st.sampled_from([A, B, C, Condition(np.int64(0), np.int64(1))]), min_size=3))
def test_the_same_question_has_the_same_answer_in_whatever_words(asked: list[Condition]) -> None:
    assert Sticky(TABLE.copy()).count([*asked, A, B, C]) == Sticky(TABLE).count([A, B, C])


def test_noise_has_two_units_of_variance_a_condition() -> None:
    conditions = [A, C]
    true = int(users(TABLE, conditions).sum())
    noise = np.array([Sticky(TABLE, salt).count(conditions) for salt in range(2000)]) - true
    assert abs(noise.mean()) < 4 * math.sqrt(4 / 2000)
    assert noise.var() == pytest.approx(4, rel=0.15)


def test_few_users_are_withheld() -> None:
    rows = np.zeros((30, 1), dtype=int)
    rows[:1] = 1
    rows[1:21] = 2
    assert Sticky(rows).count([Condition(0, 1)]) is None
    assert Sticky(rows).count([Condition(0, 3)]) is None
    assert Sticky(rows).count([Condition(0, 2)]) is not None
    four = np.repeat([0, 1], [26, 4])[:, None]
    withheld = [Sticky(four, salt).count([Condition(0, 1)]) is None for salt in range(400)]
    assert np.mean(withheld) == pytest.approx(0.5, abs=0.1)  # four users against a threshold of mean 4


def difference(k: int, has: bool, salt: int) -> float:
    """The difference of the attack's two answers on a value that the victim has or has not."""
    rows = table(k, salt)
    value = int(rows[0, k]) if has else 1 - int(rows[0, k])
    base = [Condition(c, int(rows[0, c])) for c in range(1, k)] + [Condition(k, value)]
    with_, without = (Sticky(rows, salt).count(q) for q in (base, [*base, Condition(0, int(rows[0, 0]), "!=")]))
    assert with_ is not None
    assert without is not None
    return with_ - without


@pytest.mark.parametrize(("has", "mean", "variance"), [(False, 0, 2), (True, 1, 8)])
def test_the_difference_is_distributed_as_the_attack_assumes(has: bool, mean: float, variance: float) -> None:
    found = np.array([difference(3, has, salt) for salt in range(800)])
    assert abs(found.mean() - mean) < 4 * math.sqrt(variance / 800)
    assert found.var() == pytest.approx(variance, rel=0.2)


class Told:
    """Answers by the list, whatever is asked."""

    def __init__(self, *answers: float | None) -> None:
        self.answers = list(answers)

    def count(self, conditions: object) -> float | None:
        return self.answers.pop(0)


def test_the_score_is_the_log_likelihood_ratio() -> None:
    scores = differential(Told(10.0, 8.0, 5.0, None), {0: 1, 1: 1}, secret=2)

    def normal(x: float, mean: float, variance: float) -> float:
        return -((x - mean) ** 2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)

    assert scores == {0: pytest.approx(normal(2, 1, 6) - normal(2, 0, 2)), 1: 0.0}
    assert best(scores) == 0
    assert best({0: 0.0, 1: 0.0, 2: -1.0}) == 0


def test_clones_differ_only_where_the_victim_has_the_value() -> None:
    for salt in range(20):
        rows = table(4, salt)
        known, secret = {c: int(rows[0, c]) for c in range(4)}, int(rows[0, 4])
        scores = cloning(Sticky(rows, salt), known, 4, dummies=DUMMIES)
        assert scores[1 - secret] == pytest.approx(0, abs=1e-18)
        assert scores[secret] > 0.05
        assert best(scores) == secret


def test_fresh_noise_is_laplace_and_never_the_same() -> None:
    system = Fresh(TABLE, 1, epsilon=0.5)
    noise = np.array([system.count([A]) for _ in range(4000)]) - users(TABLE, [A]).sum()
    assert noise.var() == pytest.approx(2 / 0.5**2, rel=0.15)
    assert len(set(noise.tolist())) == 4000


def test_the_victim_is_alone_with_their_attributes() -> None:
    for seed in range(5):
        rows = table(3, seed)
        assert int((rows[:, :3] == rows[0, :3]).all(1).sum()) == 1


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(BadInput, match="column 9 is asked of a table with 4 columns"):
        Sticky(TABLE).count([Condition(9, 0)])
    with pytest.raises(BadInput, match="give two or more"):
        cloning(Sticky(TABLE), {0: 1}, 1, dummies=DUMMIES[:1])
    with pytest.raises(BadInput, match="nothing is known"):
        differential(Sticky(TABLE), {}, 1)
    with pytest.raises(BadInput, match="column 3 cannot be left out"):
        differential(Sticky(TABLE), {0: 1}, 1, removed=[3])
