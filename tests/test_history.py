"""History: the formulas of an accuracy matrix and of a trace, and what is measured for them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small import mlp, same, state
from torch import nn

from oblivio import data
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.data.history import History, Trace, gaps, interval, metrics, paired
from oblivio.data.streams.experience import Experience
from oblivio.learners.learner import Learner
from oblivio.sources import Tensors
from oblivio.tasks.regression import Regression
from oblivio.terms import fit

# The worked example of the definitions.
R = [[0.9, 0.1, 0.1], [0.6, 0.8, 0.2], [0.7, 0.5, 0.9]]
B = [0.1, 0.1, 0.1]
A = [[0.9, 0.4, 0.6, 0.7], [math.nan, 0.2, 0.5, 0.8]]

shares = st.floats(0, 1, width=32)
matrices = st.integers(2, 6).flatmap(lambda t: arrays(np.float64, (t, t), elements=shares))
lines = st.lists(shares, min_size=2, max_size=30)


def test_the_worked_example() -> None:
    assert metrics.acc(R) == pytest.approx(0.7)
    assert metrics.aia(R) == pytest.approx((0.9 + 0.7 + 0.7) / 3) == pytest.approx(0.7667, abs=1e-4)
    assert metrics.bwt(R) == pytest.approx(-0.25)
    assert metrics.fm(R) == pytest.approx(0.25)
    assert metrics.fwt(R, B) == pytest.approx(0.05)
    assert metrics.la(R) == pytest.approx(0.8667, abs=1e-4)
    assert metrics.intransigence(R, [0.9, 0.9, 0.95]).tolist() == pytest.approx([0, 0.1, 0.05])
    assert metrics.plasticity(R, [1.0, 0.9, 0.9]) == pytest.approx(-0.2 / 3)
    assert metrics.slope(R) == pytest.approx(0.0)
    assert metrics.lca([[0.1, 0.4, 0.7], [0.3, 0.6, 0.9]]) == pytest.approx(0.5)


def test_the_worked_trace() -> None:
    ends = [0, 3]
    assert gaps.min_acc(A, ends) == pytest.approx(0.4)
    assert gaps.wc_acc(A, ends) == pytest.approx(0.6)
    assert gaps.largest_drop(A[0], 2) == pytest.approx(0.5)
    assert gaps.largest_drop([-a for a in A[0]], 2) == pytest.approx(0.2)
    assert gaps.largest_drop([-a for a in A[0]], 3) == pytest.approx(0.3)
    assert gaps.wf(A, [0, 1], 2) == pytest.approx(0.25)
    assert gaps.wp(A, [0, 1], 2) == pytest.approx((0.2 + 0.3) / 2)
    assert gaps.mean_gap(A, ends) == pytest.approx((0.5, 0.3))
    assert gaps.gap([0.9, 0.6, 0.4, 0.7], first=1) == pytest.approx((0.3, 0.1))


def test_the_maximum_of_forgetting_leaves_the_last_row_out_unless_clamped() -> None:
    better = [[0.5, 0.0], [0.7, 0.9]]  # the second task improved the first
    assert metrics.fm(better) == pytest.approx(-0.2)
    assert metrics.fm(better, clamped=True) == 0.0
    peak = [[0.5, 0.0, 0.0], [0.8, 0.9, 0.0], [0.6, 0.9, 0.9]]
    assert metrics.forgetting(peak).tolist() == pytest.approx([0.2, 0.0])  # from the peak, not from R[i, i]


def test_pooling_weighs_tasks_by_their_rows() -> None:
    unequal = [[1.0, 0.0], [1.0, 0.5]]
    assert metrics.averages(unequal).tolist() == pytest.approx([1.0, 0.75])
    assert metrics.averages(unequal, [30, 10]).tolist() == pytest.approx([1.0, 0.875])


@given(matrices)
def test_average_is_learning_accuracy_and_transfer(R: np.ndarray[Any, Any]) -> None:
    T = len(R)
    assert metrics.acc(R) == pytest.approx(metrics.la(R) + (T - 1) / T * metrics.bwt(R), abs=1e-12)


@given(matrices)
def test_forgetting_is_at_least_minus_transfer_and_at_most_clamped(R: np.ndarray[Any, Any]) -> None:
    assert metrics.fm(R) >= -metrics.bwt(R) - 1e-12
    assert metrics.fm(R, clamped=True) >= max(metrics.fm(R), 0.0) - 1e-12


@given(shares, st.integers(2, 6), st.integers(2, 12))
def test_constant_accuracy_forgets_nothing(value: float, T: int, window: int) -> None:
    R, trace = np.full((T, T), value), np.full((T, 3 * T), value)
    ends = list(range(2, 3 * T, 3))
    assert metrics.fm(R) == metrics.fm(R, clamped=True) == 0.0
    assert metrics.bwt(R) == pytest.approx(0.0, abs=1e-12)
    assert metrics.slope(R) == pytest.approx(0.0, abs=1e-12)
    assert gaps.wf(trace, [0] * T, window) == gaps.wp(trace, [0] * T, window) == 0.0
    assert gaps.mean_gap(trace, ends) == (0.0, 0.0)
    assert gaps.wc_acc(trace, ends) == pytest.approx(value)


@given(lines, st.integers(2, 40))
def test_a_drop_is_what_all_pairs_in_a_window_show(a: Sequence[float], window: int) -> None:
    pairs = [a[m] - a[n] for n in range(len(a)) for m in range(max(0, n - window + 1), n)]
    assert gaps.largest_drop(a, window) == pytest.approx(max(0.0, *pairs, 0.0))
    assert gaps.largest_drop(a, window) <= gaps.largest_drop(a, window + 1)


@given(arrays(np.float64, (3, 9), elements=shares))
def test_the_worst_case_is_no_more_than_the_average_at_the_end(A: np.ndarray[Any, Any]) -> None:
    ends = [2, 5, 8]
    assert gaps.wc_acc(A, ends) <= A[:, -1].mean() + 1e-12
    changed = A.copy()
    changed[:, :3] = changed[1, 3:6] = 0.0  # tasks' own training and what came before it does not count
    changed[0, 2] = A[0, 2]
    assert gaps.min_acc(changed, ends) == pytest.approx(gaps.min_acc(A, ends))


@given(st.lists(shares, min_size=3, max_size=8))
def test_the_slope_is_that_of_least_squares(learned: Sequence[float]) -> None:
    assert metrics.slope(np.diag(learned)) == pytest.approx(np.polyfit(range(len(learned)), learned, 1)[0], abs=1e-9)


@given(matrices, st.data())
def test_a_figure_that_was_not_measured_is_refused(R: np.ndarray[Any, Any], draw: st.DataObject) -> None:
    i, j = (draw.draw(st.integers(0, len(R) - 1)) for _ in range(2))
    R[i, j] = math.nan
    for figure in (metrics.acc, metrics.aia, metrics.bwt, metrics.fm, metrics.la, metrics.slope):
        with pytest.raises(BadInput, match="no number at"):
            figure(R)


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(BadInput, match="one row and one column a task"):
        metrics.acc([[0.5, 0.5]])
    with pytest.raises(BadInput, match="BWT compares tasks"):
        metrics.bwt([[0.5]])
    with pytest.raises(BadInput, match="shape"):
        metrics.fwt(R, [0.1])
    with pytest.raises(BadInput, match="needs test rows"):
        metrics.averages(R, [1, 0, 1])
    with pytest.raises(BadInput, match="no number"):
        gaps.min_acc([[0.9, math.nan], [0.1, 0.2]], [0, 1])
    with pytest.raises(BadInput, match="ascend"):
        gaps.min_acc(A, [3, 0])
    with pytest.raises(BadInput, match="no change in it"):
        gaps.largest_drop(A[0], 1)
    with pytest.raises(BadInput, match="not evaluated after its end"):
        gaps.after(np.zeros((2, 2)), [1, 1], 0)


def test_intervals_over_seeds() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t of 0.975 with 2 degrees of freedom
    assert interval([0.5]).half is None
    for wrong in ([], [0.1, math.nan]):
        with pytest.raises(BadInput, match="no interval"):
            interval(wrong)


@given(st.dictionaries(st.integers(0, 9), shares, min_size=2), shares)
def test_pairs_cancel_what_seeds_share(of: dict[int, float], by: float) -> None:
    found = paired({seed: value + by for seed, value in of.items()}, of)
    assert found.mean == pytest.approx(by, abs=1e-9)
    assert found.half == pytest.approx(0.0, abs=1e-9)


def test_pairs_need_a_seed_in_common() -> None:
    assert paired({0: 1.0, 1: 3.0, 2: 9.0}, {0: 0.0, 1: 1.0}).number == 2
    with pytest.raises(BadInput, match="no seed in common"):
        paired({0: 1.0}, {1: 1.0})


# --- measuring


def stream(tasks: int = 3, scenario: str = "class", shared: bool = True) -> tuple[list[Experience], list[Experience]]:
    """Rows of four dimensions; task i has its classes at the corners 2i and 2i + 1, and i more test rows."""
    made: tuple[list[Experience], list[Experience]] = ([], [])
    for kind, rows in enumerate((40, 10)):
        for i in range(tasks):
            g = torch.Generator().manual_seed(10 * i + kind)
            n = rows + kind * i
            y = torch.arange(n) % 2 + 2 * i
            x = torch.randn(n, 6, generator=g) * 0.3
            x[torch.arange(n), y] += 1.5
            label = y % 2 if scenario == "domain" else y
            ids = torch.arange(n).numpy() + 1000 * i + 100_000 * kind
            source = Tensors({"x": x, "y": label, "task": torch.full((n,), i)}, ids=ids)
            classes = (0, 1) if scenario == "domain" else (2 * i, 2 * i + 1)
            made[kind].append(Experience(source, i, classes, scenario, name=f"task {i}"))  # type: ignore[arg-type]
    return made


def learner(seed: int = 0, outputs: int = 6, lr: float = 0.1) -> Learner:
    torch.manual_seed(seed)
    plan = Descent(fit("new"), over="new", epochs=2, batch=8, opt=sgd(lr))
    return Learner(mlp(6, 5, outputs), plan, "classification", seed=seed)


def run(of: Learner, train: Sequence[Experience], history: History, **settings: Any) -> History:
    """Learn all and record after each; the untrained learner too."""
    trace = history.trace(**settings) if settings else None
    history.record(of)
    for experience in train:
        of.learn(experience, watch=[] if trace is None else [trace])
        history.record(of)
    return history


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_the_matrix_is_what_tasks_one_by_one_would_give(scenario: str) -> None:
    train, test = stream(scenario=scenario)
    of, history = learner(outputs=2 if scenario == "domain" else 6), History(test)
    history.record(of)
    for turn, experience in enumerate(train):
        of.learn(experience)
        history.record(of)
        for i, asked in enumerate(test):
            alone = of.problem.score(asked.rows)
            assert history.matrix[turn, i] == pytest.approx(alone, abs=1e-7)
    assert history.matrix.shape == (3, 3)
    assert history.metrics()["acc"] == pytest.approx(metrics.acc(history.matrix))
    assert history.metrics()["acc_pooled"] == pytest.approx(metrics.averages(history.matrix, [10, 11, 12])[-1])


def test_task_accuracy_comes_from_the_same_pass() -> None:
    train, test = stream()
    of, history = learner(), History(test)
    run(of, train, history)
    known = history.of("task")
    assert (known[2] >= history.matrix[2]).all()  # fewer classes to choose among
    with torch.no_grad():
        for i, asked in enumerate(test):
            batch = asked.rows.batch(torch.arange(len(asked.rows)))
            own = of.model(batch["x"])[:, list(asked.classes)].argmax(1) + asked.classes[0]
            assert known[2, i] == pytest.approx(float((own == batch["y"]).double().mean()))
    assert "fwt" not in history.metrics()
    assert "has not come" in history.absent()["fwt"]


def test_forward_transfer_is_known_where_outputs_are_shared() -> None:
    train, test = stream(scenario="domain")
    history = run(learner(outputs=2), train, History(test))
    base = history.baseline()
    assert base is not None
    assert history.metrics()["fwt"] == pytest.approx(metrics.fwt(history.matrix, base))
    without = History(test)
    of = learner(outputs=2)
    for experience in train:
        of.learn(experience)
        without.record(of)
    assert "before the first learn" in without.absent()["fwt"]
    assert history.metrics(joint=[1, 1, 1])["im"] == pytest.approx(1 - history.matrix[2, 2])
    assert history.metrics(separate=[1, 1, 1])["plasticity"] == pytest.approx(history.metrics()["la"] - 1)


def test_measuring_changes_neither_the_learner_nor_its_cost() -> None:
    train, test = stream()
    alone, watched = learner(), learner()
    for experience in train:
        alone.learn(experience)
    history = run(watched, train, History(test), every=1, rows=4)
    assert same(state(alone.problem), state(watched.problem))
    assert alone.problem.passes == watched.problem.passes == {"new": 240}
    assert alone.problem.work == watched.problem.work == {"forward": 240, "backward": 240, "steps": 30}
    assert len(history.records) == 4


def test_batch_norm_and_dropout_do_not_notice_a_trace() -> None:
    train, test = stream()

    def make() -> Learner:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 6))
        return Learner(net, Descent(fit("new"), over="new", epochs=1, batch=8, opt=sgd(0.1)), "classification")

    alone, watched = make(), make()
    for experience in train:
        alone.learn(experience)
    run(watched, train, History(test), every=2, rows=5)
    assert same(state(alone.problem), state(watched.problem))


def test_a_trace_takes_the_same_rows_and_every_step_it_is_told() -> None:
    train, test = stream()
    history = run(learner(), train, History(test), every=4, rows=7)
    trace = history.traced
    assert isinstance(trace, Trace)
    assert [(p["turn"], p["step"]) for p in trace.points] == [
        (0, 0), (1, 4), (1, 8), (1, 10), (2, 4), (2, 8), (2, 10), (3, 4), (3, 8), (3, 10)
    ]  # fmt: skip
    assert trace.steps == [0, 4, 8, 10, 14, 18, 20, 24, 28, 30]
    assert trace.sizes == [7, 7, 7]
    assert trace.points[1]["values"][1] is None
    assert trace.ends == [3, 6, 9]
    assert all((p == q).all() for p, q in zip(trace.places, History(test).trace(rows=7).places, strict=True))
    for point in trace.points:
        for value, error in zip(point["values"], point["errors"], strict=True):
            if value is not None:
                assert error == pytest.approx(math.sqrt(value * (1 - value) / 7), abs=1e-9)


def test_the_end_of_a_turn_in_a_trace_is_the_matrix_on_its_rows() -> None:
    train, test = stream()
    history = run(learner(), train, History(test), every=1, rows=1000)
    trace = history.traced
    assert trace is not None
    for turn, n in enumerate(trace.ends):
        assert trace.points[n]["values"] == pytest.approx(history.matrix[turn].tolist())
    figures = history.metrics()
    assert figures["wc_acc"] <= figures["acc"] + 1e-9
    table = np.array([[np.nan if v is None else v for v in p["values"]] for p in trace.points]).T
    assert figures["min_acc"] == pytest.approx((table[0, 11:].min() + table[1, 21:].min()) / 2)
    curves = [table[i, 10 * i : 10 * i + 11] for i in range(3)]
    assert figures["lca_10"] == pytest.approx(np.mean(curves))


def test_figures_of_a_trace_that_do_not_apply_say_why() -> None:
    train, test = stream()
    assert "every=1" in run(learner(), train, History(test), every=2, rows=5).absent()["lca_10"]
    of, history = learner(), History(test)
    of.learn(train[0], watch=[history.trace(rows=5)])
    assert "history.record(learner)" in history.absent()["wc_acc"]


def test_joint_training_has_an_average_but_nothing_to_forget() -> None:
    train, test = stream()
    rows = {c: torch.cat([e.rows.batch(torch.arange(40))[c] for e in train]) for c in ("x", "y", "task")}
    joint = Experience(Tensors(rows), 0, tuple(range(6)), "class", name="joint")
    history = run(learner(), [joint], History(test), every=1, rows=1000)
    figures = history.metrics()
    assert figures["acc"] == pytest.approx(history.matrix[0].mean())
    assert figures["wc_acc"] == pytest.approx(figures["acc"])
    assert "bwt" not in figures
    assert "one task each" in history.absent()["bwt"]


def test_tasks_that_come_again_leave_the_averages() -> None:
    train, test = stream()
    history = run(learner(), [train[0], train[1], train[0]], History(test))
    assert history.metrics()["acc"] == pytest.approx(history.matrix[2, :2].mean())
    assert "fm" in history.absent()


def test_a_task_may_take_several_turns() -> None:
    train, test = stream()
    halves = [
        Experience(e.rows.take(part), e.task, e.classes, e.scenario)  # type: ignore[arg-type]
        for e in train
        for part in (torch.arange(20), torch.arange(20, 40))
    ]
    history = run(learner(), halves, History(test), every=1, rows=1000)
    ends = history.matrix[[1, 3, 5]]
    assert history.metrics()["fm"] == pytest.approx(metrics.fm(ends))
    assert history.metrics()["la"] == pytest.approx(metrics.la(ends))
    trace = history.traced
    assert trace is not None
    table = trace.table()
    assert history.metrics()["min_acc"] == pytest.approx((table[0, 13:].min() + table[1, 25:].min()) / 2)
    assert trace.steps[12] == 12


def test_a_turn_that_was_broken_off_is_traced_once() -> None:
    train, test = stream()
    of, history = learner(), History(test)
    trace = history.trace(every=1, rows=5)

    def stop(run: Run, stage: Stage, step: Step) -> None:
        if run.steps == 4:
            raise Stopped("broken off")

    with pytest.raises(Stopped):
        of.learn(train[0], watch=[trace, stop])
    of.learn(train[0], watch=[trace])
    history.record(of)
    assert trace.steps == list(range(1, 11))
    assert trace.points == run(learner(), train[:1], History(test), every=1, rows=5).traced.points[1:]  # type: ignore[union-attr]


def test_to_know_the_task_is_not_shown_where_it_is_to_know_the_class() -> None:
    rows = Tensors({"x": torch.zeros(4, 6), "y": torch.zeros(4).long(), "task": torch.zeros(4).long()})
    assert History([Experience(rows, 0, (0,), "class")]).views == ("served",)


def test_turns_may_be_left_out_if_one_says_what_they_brought() -> None:
    train, test = stream()
    of, history = learner(), History(test)
    of.learn(train[0]).learn(train[1])
    assert history.record(of, learned=[0, 1]).order == [0, 1]


def test_errors_are_figures_of_which_less_is_better() -> None:
    test = [Experience(Tensors({"x": torch.zeros(5, 3), "y": torch.zeros(5), "task": torch.full((5,), i)}), i, (),
                       "domain") for i in range(2)]  # fmt: skip
    history = History(test)
    history.figure, history.higher = "squared error", False
    history.records = [
        {"turn": 0, "learned": [], "figures": {"served": [5.0, 6.0]}},
        {"turn": 1, "learned": [0], "figures": {"served": [1.0, 4.0]}},
        {"turn": 2, "learned": [1], "figures": {"served": [3.0, 2.0]}},
    ]
    found = history.metrics()
    assert found["acc"] == 2.5
    assert found["la"] == 1.5
    assert found["bwt"] == -2.0
    assert found["fm"] == 2.0
    assert found["fwt"] == 2.0  # the error on the second task fell from 6 to 4 before it came
    assert "%" not in str(history)


def test_a_regression_is_recorded_in_its_error() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, generator=g)
    rows = Tensors({"x": x, "y": x[:, 0], "task": torch.zeros(30, dtype=torch.long)})
    only = Experience(rows, 0, (), "domain")
    torch.manual_seed(0)
    of = Learner(mlp(6, 5, 1), Descent(fit("new"), over="new", epochs=5, batch=5, opt=sgd(0.05)), Regression())
    history = run(of, [only], History([only]), every=1, rows=10)
    assert (history.figure, history.higher) == ("squared error", False)
    base = history.baseline()
    assert base is not None
    assert history.metrics()["acc"] < 0.5 * base[0]


def test_a_history_survives_json() -> None:
    train, test = stream()
    history = run(learner(), train, History(test), every=2, rows=6)
    again = History.from_json(json.loads(json.dumps(history.to_json())))
    assert again.metrics() == history.metrics()
    assert again.metrics("task") == history.metrics("task")
    assert str(again) == str(history)
    assert again.to_json() == history.to_json()
    with pytest.raises(BadInput, match="no test rows"):
        again.record(learner())
    with pytest.raises(BadInput, match="no history"):
        History.from_json({"tasks": []})


def test_the_table_says_what_was_measured() -> None:
    train, test = stream()
    text = str(run(learner(), train, History(test)))
    assert text.splitlines()[0].split() == ["accuracy,", "%", "task", "0", "task", "1", "task", "2"]
    assert text.splitlines()[2].split()[:2] == ["after", "1"]
    assert text.splitlines()[2].split()[-2:] == ["–", "–"]
    assert "average accuracy (ACC)" in text
    assert "task known" in text
    assert str(History(test)).split()[0] == "accuracy,"


def test_turns_are_not_left_out() -> None:
    train, test = stream()
    of, history = learner(), History(test)
    of.learn(train[0]).learn(train[1])
    with pytest.raises(BadInput, match="after every learn"):
        history.record(of)


def test_recording_again_replaces() -> None:
    train, test = stream()
    of, history = learner(), History(test)
    of.learn(train[0])
    assert history.record(of).record(of).matrix.shape == (1, 3)


def test_what_cannot_be_recorded_is_refused() -> None:
    train, test = stream()
    with pytest.raises(BadInput, match="at least one task"):
        History([])
    with pytest.raises(BadInput, match="no test rows of task 2"):
        History(test[:2]).record(learner().learn(train[2]))
    plain = learner()
    plain.learn(new=(torch.zeros(8, 6), torch.arange(8) % 2))
    with pytest.raises(BadInput, match="learned="):
        History(test).record(plain)
    assert History(test).record(plain, learned=[0]).matrix.shape == (1, 3)
    history = History(test).record(learner())
    with pytest.raises(BadInput, match="before the first record"):
        history.trace()
    with pytest.raises(BadInput, match="at least 1"):
        History(test).trace(every=0)
    with pytest.raises(BadInput, match="no view"):
        history.of("seen")
    assert "nothing was recorded" in History(test).absent()["acc"]


def test_a_model_that_diverged_is_not_averaged() -> None:
    rows = Tensors({"x": torch.zeros(5, 6), "y": torch.zeros(5), "task": torch.zeros(5, dtype=torch.long)})
    test = [Experience(rows, 0, (), "domain")]
    net = mlp(6, 5, 1)
    with torch.no_grad():
        net[2].bias.fill_(math.nan)  # type: ignore[union-attr]
    of = Learner(net, Descent(fit("new"), over="new", epochs=1), Regression())
    history = History(test)
    with pytest.raises(BadInput, match="no number"):
        history.record(of)
    assert history.records == []


def test_it_is_where_the_documentation_says() -> None:
    assert data.History is History
