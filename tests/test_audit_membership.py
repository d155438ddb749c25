"""Membership inference: AUCs by ranks and over classes, LiRA, and the p-value of a small request."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from oblivio import data
from oblivio.audits.auc import auc, placements, stratified
from oblivio.audits.case import Case, Look, gather
from oblivio.audits.probe import Figure, Value, figure, known
from oblivio.audits.probes import membership, small
from oblivio.audits.seen import Seen
from oblivio.audits.subjects import Subject
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator

MIA = ("mia_loss", "mia_confidence", "mia_lira", "mia_lira_tpr", "small_request")
Rows = Mapping[str, Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def case(
    targets: Rows, *models: Rows, task: str = "classification", classes: tuple[int, ...] = (), **out: Tensor
) -> Case:
    """A case of models that give these scores and margins; the first is the outcome, the others are references."""
    problem = Problem(nn.Linear(1, 1), task=task, **{on: (torch.zeros(len(y), 1), y) for on, y in targets.items()})
    looks = [
        Look(
            Subject(f"model {i}", "reference" if i else "outcome", {}),
            {on: Seen(out.get(on, values), values, values, values) for on, values in model.items()},
        )
        for i, model in enumerate(models)
    ]
    return Case(problem, looks, classes, targets, {}, {})


def measured(name: str, of: Case) -> Figure:
    return figure(known()[name], of)


def first(name: str, of: Case) -> Value:
    """The outcome's figure."""
    found = measured(name, of)
    assert found.state == "figure", found.why
    return found.values["model 0"]


def why(name: str, of: Case) -> str:
    found = measured(name, of)
    assert found.state == "does not apply", found
    return found.why


def classed(counts: Mapping[int, int]) -> Tensor:
    return torch.tensor([c for c, n in counts.items() for _ in range(n)])


# --- the AUC

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=20)  # few values: ties are common


@given(SCORES, SCORES)
def test_the_auc_is_that_of_scikit_learn_and_its_variance_that_of_delong(ours: list[int], theirs: list[int]) -> None:
    value, variance = auc(torch.tensor(ours).double(), torch.tensor(theirs).double())
    truth = np.repeat([1, 0], [len(ours), len(theirs)])
    assert value == pytest.approx(roc_auc_score(truth, ours + theirs))
    wins = np.array([[(a > b) + 0.5 * (a == b) for b in theirs] for a in ours])
    sides = [np.var(each, ddof=1) / len(each) if len(each) > 1 else 0.25 for each in (wins.mean(1), wins.mean(0))]
    assert variance == pytest.approx(sum(sides))


def test_infinities_have_ranks_and_nan_has_none() -> None:
    rows = torch.tensor([-torch.inf, 0, torch.inf])
    assert placements(rows, rows).tolist() == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    for pair in ((rows, torch.tensor([torch.nan])), (torch.tensor([torch.nan]), rows)):
        with pytest.raises(ValueError, match="not numbers"):
            auc(*pair)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth, found = 0.5 * (1 + math.erf(0.5)), []  # of two normals of deviation 1 that are 1 apart
    for seed in range(400):
        sample = normal(200, seed=seed).double()
        found.append(stratified([(0.5, sample[:30] + 1, sample[30:80]), (0.5, sample[80:110] + 1, sample[110:])]))
    inside = sum(each.low <= truth <= each.high for each in found)  # type: ignore[operator]
    assert 0.92 <= inside / 400 <= 0.975


def test_one_row_shows_nothing_of_how_far_it_is_off() -> None:
    found = stratified([(1.0, torch.tensor([1.0]), torch.tensor([0.0]))])
    assert (found.value, found.low, found.high, found.rows) == (1, 0, 1, 2)


# --- by class


def test_an_easy_class_is_no_sign_of_membership() -> None:
    """Forgotten rows are mostly of the easy class, unseen rows mostly of the hard one; in each they look the same."""
    y = {"forget": classed({0: 90, 1: 10}), "test": classed({0: 10, 1: 90})}
    grid = {n: torch.linspace(-1, 1, n) for n in (10, 90)}
    scores = {"forget": torch.cat([5 + grid[90], grid[10]]), "test": torch.cat([5 + grid[10], grid[90]])}
    assert auc(scores["forget"], scores["test"])[0] > 0.85
    zero = {on: torch.zeros(100) for on in y}
    both = case(y, scores, zero, zero)
    for name in ("mia_loss", "mia_lira"):
        assert first(name, both).value == pytest.approx(0.5)


def test_classes_weigh_as_many_rows_as_they_lose() -> None:
    y = {"forget": classed({0: 3, 1: 1}), "test": classed({0: 2, 1: 2, 2: 5})}
    found = first(
        "mia_loss", case(y, {"forget": torch.tensor([1.0, 1, 1, 0]), "test": torch.tensor([0.0] * 2 + [1] * 7)})
    )
    assert found.value == 0.75
    assert found.rows == 8


def test_a_class_without_unseen_rows_is_left_out() -> None:
    y = {"forget": classed({0: 2, 7: 2}), "test": classed({0: 4})}
    scores = {"forget": torch.tensor([1.0, 1, 0, 0]), "test": torch.zeros(4)}
    left = case(y, scores, scores, scores)
    assert first("mia_loss", left).value == 1
    assert first("small_request", left).rows == 2
    assert "rows left out, of classes without unseen rows: 2" in first("small_request", left).note
    none = case({**y, "forget": classed({7: 4})}, scores, scores, scores)
    for name in ("mia_loss", "mia_lira", "mia_lira_tpr", "small_request"):
        assert why(name, none) == "no class of the forgotten rows has an unseen row"


@pytest.mark.parametrize(("task", "y"), [("regression", normal(30)), ("multilabel", (normal(30, 3) > 0).long())])
def test_rows_without_a_class_are_one_stratum(task: str, y: Tensor) -> None:
    scores = {"forget": normal(30) + 5, "test": normal(30, seed=1)}
    other = {on: torch.zeros(30) for on in scores}
    found = case({"forget": y, "test": y}, scores, other, other, task=task)
    for name in ("mia_loss", "mia_lira"):
        assert first(name, found).value == pytest.approx(auc(scores["forget"], scores["test"])[0])
    assert first("small_request", found).value < 0.001


def test_a_constant_score_says_nothing() -> None:
    y = {on: classed({0: 20, 1: 30}) for on in ("forget", "test")}
    same = {on: torch.ones(50) for on in y}
    found = case(y, same, same, same)
    assert [first(name, found).value for name in ("mia_loss", "mia_lira", "small_request")] == [0.5, 0.5, 1]


# --- by confidences


def answers(boost: float, n: int = 400) -> tuple[Rows, Rows]:
    """Targets and logits of random rows; those of retained and forgotten ones are surer of their class by ``boost``."""
    y = {on: torch.arange(n) % 4 for on in ("forget", "retain", "test")}
    logits = {on: normal(n, 4, seed=i) + F.one_hot(y[on], 4) for i, on in enumerate(y)}
    return y, {on: out + boost * F.one_hot(y[on], 4) * (on != "test") for on, out in logits.items()}


def sure(boost: float, n: int = 400, forgotten: int = 400, classes: tuple[int, ...] = ()) -> Case:
    y, out = answers(boost, n)
    y, out = ({**each, "forget": each["forget"][:forgotten]} for each in (y, out))
    return case(y, {on: -F.cross_entropy(out[on], y[on], reduction="none") for on in y}, classes=classes, **out)


def test_confidences_tell_members_where_they_are_surer() -> None:
    assert first("mia_confidence", sure(2)).value > 0.75
    assert first("mia_confidence", sure(0)).value == pytest.approx(0.5, abs=0.06)
    assert first("mia_confidence", sure(2)) == first("mia_confidence", sure(2))
    assert first("mia_confidence", sure(2, forgotten=1)).rows == 101


def test_no_unseen_row_is_scored_by_a_classifier_that_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []

    def cheat(members: Tensor, strangers: Tensor) -> object:
        fitted.append(len(strangers))
        return lambda rows: torch.isin(rows[:, -1], strangers[:, -1]).double()

    monkeypatch.setattr(membership, "_classifier", cheat)
    assert first("mia_confidence", sure(0)).value == 0.5
    assert fitted == [200, 200]
    assert first("mia_confidence", sure(0, classes=(3,))).value == 0.5
    assert sum(fitted[2:]) == 300  # without the rows of the class that goes


def test_confidences_need_rows_to_learn_from_and_a_task_that_has_them() -> None:
    assert why("mia_confidence", sure(0, n=30, forgotten=30)).startswith("a classifier needs 20 retained rows")
    y = {on: normal(50) for on in ("forget", "retain", "test")}
    assert why("mia_confidence", case(y, y, task="regression")) == "a regression gives no confidences"
    assert "retain" in why("mia_confidence", case({on: y[on].long() for on in ("forget", "test")}, y))


def test_a_hidden_class_does_not_break_the_classifier() -> None:
    y, out = answers(2)
    masked = {on: logits.index_fill(1, torch.tensor([3]), -1e9) for on, logits in out.items()}
    kept = {on: rows < 3 if on == "retain" else rows == 3 if on == "forget" else rows < 4 for on, rows in y.items()}
    y, masked = ({on: each[on][kept[on]] for on in kept} for each in (y, masked))
    scores = {on: -F.cross_entropy(masked[on], y[on], reduction="none") for on in y}
    assert first("mia_confidence", case(y, scores, classes=(3,), **masked)).rows == 200


# --- against references


def test_lira_sees_through_how_hard_rows_are() -> None:
    """Rows differ far more than being known adds; the references know how hard each is."""
    y = {on: classed({0: 100, 1: 100}) for on in ("forget", "test")}
    hard = {on: 10 * normal(200, seed=i) for i, on in enumerate(y)}
    references = [{on: hard[on] + 0.1 * normal(200, seed=7 * k + i) for i, on in enumerate(y)} for k in (1, 2, 3)]
    member = {"forget": hard["forget"] + 1, "test": hard["test"]}
    found = measured("mia_lira", case(y, member, *references))
    assert found.values["model 0"].value > 0.999
    assert first("mia_loss", case(y, member)).value < 0.6
    for k in (1, 2, 3):
        control = found.values[f"model {k}"]
        assert control.low < 0.5 < control.high  # type: ignore[operator]


def test_a_reference_is_held_against_the_others() -> None:
    y = {"forget": torch.zeros(2).long(), "test": torch.zeros(1).long()}
    margins = [torch.tensor([a, 5.0]) for a in (9.0, 1, 2, 6)]
    found = case(y, *({"forget": each, "test": torch.zeros(1)} for each in margins))
    me = found.looks[1]
    assert membership.relative(me, found.others(me), "forget").tolist() == [1 - 4, 0]
    assert membership.relative(found.outcome, found.others(found.outcome), "forget").tolist() == [9 - 3, 0]


@pytest.mark.parametrize("hidden", [-1e9, -torch.inf, torch.inf])
def test_a_hidden_output_breaks_nothing(hidden: float) -> None:
    y = {on: torch.zeros(30).long() for on in ("forget", "test")}
    masked = {on: torch.full((30,), hidden) for on in y}
    plain = {on: normal(30, seed=i) for i, on in enumerate(y)}
    for models in ((masked, plain, plain), (plain, masked, plain), (masked, masked, masked)):
        for name in ("mia_lira", "small_request"):
            assert 0 <= first(name, case(y, *models)).value <= 1


def test_outputs_that_are_not_numbers_fail_the_audit() -> None:
    y = {on: torch.zeros(300).long() for on in ("forget", "test")}
    broken, plain = ({on: torch.full((300,), value) for on in y} for value in (torch.nan, 0.0))
    for name in ("mia_loss", "mia_lira", "mia_lira_tpr"):
        assert measured(name, case(y, broken, plain, plain)).state == "failed"


def test_without_another_reference_there_is_none_to_compare_with() -> None:
    y = {on: torch.zeros(30).long() for on in ("forget", "test")}
    rows = {on: normal(30) for on in y}
    for references in ((), (rows,)):
        for name in ("mia_lira", "small_request"):
            assert "no other reference" in why(name, case(y, rows, *references))


# --- the share at 1% of false alarms


def tail(forgotten: Tensor, unseen: Tensor) -> Case:
    zero = {"forget": torch.zeros(len(forgotten)), "test": torch.zeros(len(unseen))}
    y = {on: rows.long() for on, rows in zero.items()}
    return case(y, {"forget": forgotten, "test": unseen}, zero, zero)


def test_the_share_at_one_percent_is_above_all_but_one_in_a_hundred() -> None:
    unseen = torch.arange(400.0)
    found = first("mia_lira_tpr", tail(torch.tensor([396.0, 395.5, 395, 0]).repeat(100), unseen))
    assert found.value == 0.5  # three unseen rows lie above 396 and it is tied with one; five are not below 395
    assert found.low == pytest.approx(0.4512, abs=1e-4)
    assert found.rows == 400


def test_a_tie_with_all_is_no_alarm() -> None:
    assert first("mia_lira_tpr", tail(torch.zeros(300), torch.zeros(300))).value == 0


@pytest.mark.parametrize(("forgotten", "unseen"), [(299, 300), (300, 299)])
def test_the_share_at_one_percent_needs_300_rows_on_each_side(forgotten: int, unseen: int) -> None:
    reason = why("mia_lira_tpr", tail(torch.zeros(forgotten), torch.zeros(unseen)))
    assert reason == f"it needs 300 rows on each side; there are {forgotten} forgotten and {unseen} unseen"


# --- requests of a few rows


def few(forgotten: Mapping[int, Tensor], unseen: Mapping[int, Tensor]) -> Case:
    y = {
        "forget": classed({c: len(v) for c, v in forgotten.items()}),
        "test": classed({c: len(v) for c, v in unseen.items()}),
    }
    mine = {"forget": torch.cat([*forgotten.values()]), "test": torch.cat([*unseen.values()])}
    zero = {on: torch.zeros(len(rows)) for on, rows in mine.items()}
    return case(y, mine, zero, zero)


def test_one_row_has_its_own_p() -> None:
    unseen = {3: torch.arange(199.0), 4: torch.full((50,), 1e3)}
    found = first("small_request", few({3: torch.tensor([197.0])}, unseen))
    assert (found.value, found.rows, found.note) == (pytest.approx(3 / 200), 1, "smallest p of a row 0.015")
    assert first("small_request", few({3: torch.tensor([500.0])}, unseen)).value == pytest.approx(1 / 200)
    assert first("small_request", few({3: torch.tensor([-1.0])}, unseen)).value == 1


def test_one_row_of_a_small_class_says_what_cannot_be_shown() -> None:
    found = first("small_request", few({7: torch.tensor([50.0])}, {7: torch.arange(12.0), 1: torch.arange(500.0)}))
    assert found.value == pytest.approx(1 / 13)
    assert found.note == "smallest p of a row 0.077; class 7 has 12 unseen rows: p cannot be below 0.077"
    two = first("small_request", few({1: torch.ones(1), 7: torch.ones(1)}, {1: torch.zeros(1), 7: torch.zeros(2)}))
    assert two.value == pytest.approx(1 / 6, abs=0.02)
    assert two.note.endswith("class 1 has 1 unseen row, class 7 has 2 unseen rows: p cannot be below 0.167")
    zero = {"forget": torch.zeros(1), "test": torch.zeros(12)}
    scores = {"forget": torch.ones(1), "test": torch.zeros(12)}
    assert (
        "; there are 12 unseen rows: p"
        in first("small_request", case(zero, scores, zero, zero, task="regression")).note
    )


@pytest.mark.parametrize("n", range(1, 9))
def test_p_is_not_below_what_it_is_said_not_to_be_below(n: int) -> None:
    found = first("small_request", few({c: torch.ones(1) for c in (1, 7)}, {c: torch.zeros(n) for c in (1, 7)}))
    assert found.value >= 1 / (1 + n) ** 2


def test_a_hundred_rows_are_no_small_request() -> None:
    assert why("small_request", few({0: torch.ones(100)}, {0: torch.zeros(9)})) == "for requests of fewer than 100 rows"
    assert first("small_request", few({0: torch.ones(99)}, {0: torch.zeros(9)})).value == pytest.approx(1e-4)


def test_several_rows_of_one_class_have_the_p_of_the_rank_sum() -> None:
    ours, theirs = normal(8).double() + 0.6, normal(40, seed=1).double()
    exact = mannwhitneyu(ours, theirs, alternative="greater", method="exact").pvalue
    assert small.together([(ours, theirs)], generator(0)) == pytest.approx(
        exact, abs=4 * math.sqrt(exact / small.DRAWS)
    )


@settings(max_examples=20)
@given(st.lists(st.tuples(SCORES.map(lambda s: s[:2]), SCORES.map(lambda s: s[:5])), min_size=1, max_size=2))
def test_p_is_the_share_of_choices_that_rank_as_high(strata: list[tuple[list[int], list[int]]]) -> None:
    pairs = [(torch.tensor(a).double(), torch.tensor(b).double()) for a, b in strata]
    sums = []
    for ours, theirs in pairs:
        ranks = placements(torch.cat([ours, theirs]), torch.cat([ours, theirs])).tolist()
        sums.append([sum(chosen) for chosen in itertools.combinations(ranks, len(ours))])
    every = np.array([sum(each) for each in itertools.product(*sums)])  # the first is that of the rows themselves
    exact = float((every >= every[0] - 1e-9).mean())
    assert small.together(pairs, generator(0)) == pytest.approx(exact, abs=0.025)
    assert exact >= small.least(pairs) - 1e-12


def test_choices_are_of_different_numbers_all_alike() -> None:
    found = small.choices(3, 5, generator(0))
    assert set(found.flatten().tolist()) == set(range(5))
    ordered = found.sort(0).values
    assert bool((ordered.diff(dim=0) > 0).all())
    sets = (5 ** torch.arange(3) @ ordered).unique(return_counts=True)[1] / small.DRAWS
    torch.testing.assert_close(sets, torch.full((10,), 0.1), atol=0.015, rtol=0)


@pytest.mark.parametrize("sizes", [{0: (1, 150)}, {0: (2, 60), 1: (1, 30), 2: (3, 9)}, {0: (20, 50)}], ids=str)
@pytest.mark.parametrize("ties", [False, True])
def test_rows_that_are_not_known_are_seldom_taken_for_known(
    sizes: Mapping[int, tuple[int, int]], ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgotten and unseen rows of a class from one distribution: p is below 1% in 1% of all requests at most."""
    monkeypatch.setattr(small, "DRAWS", 499)  # at any number of draws
    rounds, below = 600, 0
    sampled = {c: normal(rounds, m + n, seed=c).double() + c for c, (m, n) in sizes.items()}
    if ties:
        sampled = {c: (rows > c + 1.5).double() for c, rows in sampled.items()}
    for i in range(rounds):
        strata = [(sampled[c][i, :m], sampled[c][i, m:]) for c, (m, _) in sizes.items()]
        one = len(strata) == 1 and len(strata[0][0]) == 1
        below += float(small.row_p(*strata[0]) if one else small.together(strata, generator(i))) < small.LEVEL
    assert below <= 13  # of 600, of which 6 are expected; the chance of more is 0.4%


def test_rows_that_are_known_are_taken_for_known() -> None:
    unseen = {c: normal(80, seed=c) for c in range(3)}
    assert first("small_request", few({c: normal(6, seed=9 + c) + 1.2 for c in range(3)}, unseen)).value < 0.001


# --- a real model


def learned(x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """A network that knows its rows by heart."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    opt = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        opt.step()
    return model


def test_a_model_that_knows_rows_by_heart_is_told_from_models_that_never_saw_them() -> None:
    x, truth = (data.load("digits").train.batch(torch.arange(800))[name] for name in "xy")
    x, draws = x.flatten(1), generator(0)
    y = truth.where(torch.rand(800, generator=draws) > 0.3, torch.randint(10, (800,), generator=draws))
    sets = {"forget": slice(0, 60), "retain": slice(60, 400), "test": slice(400, 800)}
    original = learned(x[:400], y[:400], 0)
    problem = Problem(original, **{on: (x[each], y[each]) for on, each in sets.items()})
    references = [learned(x[60:400], y[60:400], seed) for seed in (1, 2, 3)]
    subjects = [
        Subject("outcome", "outcome", {"model": original}), Subject("original", "original", {"model": original}),
        *(Subject(f"retrained {i}", "reference", {"model": each}) for i, each in enumerate(references)),
    ]  # fmt: skip
    seen = gather(problem, subjects, [])
    figures = {name: measured(name, seen) for name in MIA}
    assert "it needs 300 rows" in figures.pop("mia_lira_tpr").why
    p = figures.pop("small_request").values
    assert p["original"].value < 0.001 < min(p[f"retrained {i}"].value for i in range(3))
    for name, found in figures.items():
        controls = [found.values[f"retrained {i}"] for i in range(3)]
        assert all(abs(each.value - 0.5) < 0.12 for each in controls), name
        assert found.values["original"].value > max(0.58, *(each.value for each in controls)), name
        assert found.values["outcome"] == found.values["original"]
