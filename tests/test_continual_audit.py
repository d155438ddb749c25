"""The continual audit: exact costs, plasticity probes, comparisons, and the page."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import browser
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small import mlp, problem, rows, same, state
from torch import Tensor, nn

from oblivio import methods, terms
from oblivio.audits.continual import Comparison, Ledger, Meter, Outcome, page, plasticity, resources
from oblivio.audits.continual.charts import Heat, Traces, charts, thinned
from oblivio.audits.report.charts import Lines
from oblivio.claims.continual import network, split_digits
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.importance import fisher
from oblivio.core.opt import adam, sgd
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.data.history import History
from oblivio.data.streams.experience import Experience
from oblivio.learners.learner import Learner
from oblivio.sources import Tensors

N, BATCH, EPOCHS, TASKS = 40, 8, 2, 3
STEPS = TASKS * EPOCHS * N // BATCH
SEEN = TASKS * EPOCHS * N


@functools.cache
def stream() -> tuple[tuple[Experience, ...], tuple[Experience, ...]]:
    """Three tasks of two classes: 40 rows to learn, 10 to test on, six columns."""
    made: list[tuple[Experience, ...]] = []
    for kind, n in enumerate((N, 10)):
        parts = []
        for i in range(TASKS):
            g = torch.Generator().manual_seed(10 * i + kind)
            y = torch.arange(n) % 2 + 2 * i
            x = torch.randn(n, 6, generator=g) * 0.3
            x[torch.arange(n), y] += 1.5
            ids = torch.arange(n).numpy() + 1000 * i + 100_000 * kind
            source = Tensors({"x": x, "y": y, "task": torch.full((n,), i)}, ids=ids)
            parts.append(Experience(source, i, (2 * i, 2 * i + 1), "class", name=f"task {i}"))
        made.append(tuple(parts))
    return made[0], made[1]


def joint() -> Experience:
    train, _ = stream()
    whole = {c: torch.cat([e.rows.batch(torch.arange(N))[c] for e in train]) for c in ("x", "y", "task")}
    return Experience(Tensors(whole), 0, tuple(range(2 * TASKS)), "class", name="joint")


def run(plan: Stage, seed: int = 0, every: int = 0, experiences: Sequence[Experience] = ()) -> Outcome:
    """A method over the stream, with a meter, and a trace if asked for."""
    train, test = stream()
    torch.manual_seed(seed)
    learner = Learner(mlp(6, 8, 2 * TASKS), plan, "classification", seed)
    history = History(test)
    trace = history.trace(every=every, rows=8) if every else None
    meter = Meter(learner, trace)
    history.record(learner)
    for experience in experiences or train:
        learner.learn(experience, watch=[meter, *([trace] if trace else [])])
        history.record(learner)
        meter.close()
    return Outcome("", "class", seed, history, meter.ledger())


def ledger(plan: Stage, **settings: Any) -> Ledger:
    found = run(plan, **settings).ledger
    assert found is not None
    return found


def named(name: str, **settings: Any) -> Stage:
    return methods.registry.get(name)(lr=0.1, epochs=EPOCHS, batch=BATCH, **settings)


def work(of: Ledger) -> tuple[float, float, float]:
    return of.total("steps"), of.total("forward"), of.total("backward")


# --- counters, against numbers worked out by hand


def test_naive_passes_every_row_once_an_epoch() -> None:
    assert work(ledger(named("naive"))) == (STEPS, SEEN, SEEN)


def test_replay_passes_its_batch_at_every_step_but_the_first() -> None:
    replayed = 5 * (STEPS - 1)  # at the first step nothing is stored
    assert work(ledger(named("er", buffer=100, replay=5))) == (STEPS, SEEN + replayed, SEEN + replayed)
    assert work(ledger(named("der", buffer=100, replay=5))) == (STEPS, SEEN + replayed, SEEN + replayed)
    assert work(ledger(named("der_pp", buffer=100, replay=5))) == (STEPS, SEEN + 2 * replayed, SEEN + 2 * replayed)


def test_a_teacher_is_one_more_forward_and_no_backward() -> None:
    assert work(ledger(named("lwf"))) == (STEPS, SEEN + TASKS * N, SEEN)  # its answers are kept for all epochs


def test_importance_is_a_forward_a_row_and_a_backward_a_class() -> None:
    backward = SEEN + sum(N * 2 * (t + 1) for t in range(TASKS))
    assert work(ledger(named("ewc", fisher="all"))) == (STEPS, SEEN + TASKS * N, backward)
    assert work(ledger(named("ewc", fisher="true"))) == (STEPS, SEEN + TASKS * N, SEEN + TASKS * N)


def test_evaluation_is_no_cost_of_the_method() -> None:
    traced, alone = (ledger(named("er", buffer=20, replay=5), every=every) for every in (1, 0))
    assert work(traced) == work(alone)


def test_storage_is_what_is_carried() -> None:
    weights = sum(p.numel() for p in mlp(6, 8, 2 * TASKS).parameters()) * 4
    er, ewc, naive = (ledger(named(*given, **more)) for given, more in (
        (("er",), {"buffer": 30, "replay": 5}), (("ewc",), {}), (("naive",), {})))  # fmt: skip
    row = 6 * 4 + 8 + 8 + 8  # x in 32 bits; y, task and id in 64
    assert er.carried == {"rows": 30 * row}
    assert er.rows == 30
    assert ewc.carried == {"importance": 2 * weights}
    assert naive.carried == {}
    assert naive.peak == {"weights": weights}
    assert er.peak == {"weights": weights, "rows": 30 * row}
    assert ledger(named("der", buffer=30, replay=5)).carried == {"rows": 30 * (row + 4 * 2 * TASKS)}
    assert ledger(named("lwf")).peak == {"weights": weights, "cache": N * 4 * 2 * TASKS}
    assert not er.grows
    assert er.flops == er.base_flops == 2 * (6 * 8 + 8 * 6)


def test_moments_count_at_the_peak_and_where_they_are_carried() -> None:
    weights = sum(p.numel() for p in mlp(6, 8, 2 * TASKS).parameters()) * 4
    for carry in (False, True):
        plan = Descent(terms.fit("new"), over="new", epochs=1, batch=8, opt=adam(0.01, carry=carry))
        found = ledger(plan)
        tensors = 4  # each has a step count of its own, in 32 bits
        assert found.peak["optimiser"] == 2 * weights + 4 * tensors
        assert found.carried == ({"optimiser": 2 * weights + 4 * tensors} if carry else {})


def test_chunks_and_snapshots_count_rows_as_they_are() -> None:
    whole, split = problem(), problem()
    for of, chunk in ((whole, None), (split, 5)):
        Run(Descent(terms.fit("retain"), epochs=2, batch=12, chunk=chunk, opt=sgd(0.1)), of).go()
    assert whole.work == split.work == {"steps": 6, "forward": 60, "backward": 60}
    of = problem()
    Run(Descent(terms.fit("retain") + terms.distill("retain"), steps=3, over="retain", batch=10, opt=sgd(0.1)), of).go()
    assert of.work == {"steps": 3, "forward": 60, "backward": 30}  # the cached answers of 30 rows
    assert of.passes == {"retain": 60}


def test_a_snapshot_that_is_not_cached_is_a_forward() -> None:
    @term
    def beside(step: Step, on: On) -> Tensor:
        return (step.out(on) - step.out(on, at="before")).square().sum(1)

    of = problem()
    of.keep("before")
    Run(Descent(beside("retain"), steps=2, over="retain", batch=10, opt=sgd(0.1)), of).go()
    assert of.work == {"steps": 2, "forward": 40, "backward": 20}
    assert of.passes == {"retain": 20}


def test_work_is_saved_with_a_run(tmp_path: Path) -> None:
    plan = Descent(terms.fit("retain"), epochs=2, batch=10, opt=sgd(0.1))

    def stop(run: Run, stage: Stage, step: Step) -> None:
        if run.steps == 4:
            run.checkpoint()
            raise Stopped("killed")

    with pytest.raises(Stopped):
        Run(plan, problem(), tmp_path, watch=[stop]).go()
    again = problem()
    Run(plan, again, tmp_path).resume().go()
    assert again.work == {"steps": 6, "forward": 60, "backward": 60}


def test_nothing_is_booked_where_it_is_asked_not_to() -> None:
    of = problem()
    fisher(of, "retain")
    assert of.work == {"forward": 30, "backward": 30}
    with of.uncounted():
        of.predict("retain")
    assert of.work == {"forward": 30, "backward": 30}
    assert of.copy().work == of.work
    assert of.copy().work is not of.work


@pytest.mark.slow
def test_replay_on_digits_has_a_stability_gap_and_joint_training_has_none() -> None:
    stream = split_digits("class", 0)
    found = {}
    for name, settings in (("naive", {}), ("er", {"buffer": 500, "replay": 10}), ("joint", {})):
        plan = methods.registry.get(name.replace("joint", "naive"))(lr=0.05, epochs=10, batch=10, **settings)
        learner = Learner(network(stream, 0), plan, "classification")
        history = History(stream.test)
        trace = history.trace()
        for experience in [stream.joint] if name == "joint" else stream.train:
            learner.learn(experience, watch=[trace])
            history.record(learner)
        found[name] = history.metrics()
    assert found["er"]["acc"] - found["er"]["wc_acc"] >= 0.15
    assert found["er"]["min_acc"] > found["naive"]["min_acc"] + 0.3
    assert found["joint"]["wc_acc"] == pytest.approx(found["joint"]["acc"])


# --- what follows from a ledger


def made(forward: Sequence[float], backward: Sequence[float], carried: Sequence[float] = (), **more: Any) -> Ledger:
    carried = carried or [0.0] * len(forward)
    turns = [
        {"steps": 1.0, "forward": f, "backward": b, "seconds": 2.0, "carried": c}
        for f, b, c in zip(forward, backward, carried, strict=True)
    ]
    facts = {"peak": {"weights": 100}, "carried": {}, "rows": 0, "parameters": 1_000_000, "flops": 1_000,
             "base_parameters": 1_000_000, "base_flops": 1_000}  # fmt: skip
    return Ledger(turns, **{**facts, **more})


def test_relative_cost() -> None:
    naive, once = made([10, 10, 10], [10, 10, 10]), made([30], [30])
    assert naive.passes == 90
    assert resources.cumulative(naive) == 30 + 60 + 90
    assert resources.relative(made([20, 20, 20], [20, 20, 20]), once, naive) == {
        "joint": 2.0, "every_task": 1.0, "seconds": 3.0
    }  # fmt: skip
    with pytest.raises(BadInput, match="empty"):
        resources.relative(naive, made([0], [0]), naive)


def test_net_score_by_hand() -> None:
    of = made([1e6], [0], flops=1_000)  # a million parameters and a GFLOP
    assert resources.net_score(0.5, of) == pytest.approx(40 * math.log10(50))
    assert resources.net_score(0.5, made([1e6], [0], parameters=100_000_000)) == pytest.approx(40 * math.log10(50) - 20)
    assert resources.net_score(0.0, of) == -math.inf
    with pytest.raises(BadInput, match="share"):
        resources.net_score(50, of)


def test_growth_is_seen_after_the_second_task() -> None:
    assert made([1] * 4, [1] * 4, [50, 100, 100, 100]).grows is False
    assert made([1] * 4, [1] * 4, [50, 100, 150, 200]).grows is True
    assert made([1, 1], [1, 1], [50, 100]).grows is False


def test_equal_memory_is_rows_that_fit() -> None:
    assert resources.rows_within(1000, 100) == 10
    assert resources.rows_within(1000, 120, fixed=100) == 7
    with pytest.raises(BadInput, match="raise the budget"):
        resources.rows_within(100, 60, fixed=50)


def test_a_tensor_that_two_share_is_counted_once() -> None:
    one = torch.zeros(10)
    assert resources.bytes_of({"a": one, "b": [one, {"c": torch.zeros(2, dtype=torch.int64)}], "d": 3}) == 56


def test_a_meter_that_saw_nothing_says_so() -> None:
    learner = Learner(mlp(), named("naive"), "classification")
    with pytest.raises(BadInput, match="no step"):
        Meter(learner).ledger()


# --- plasticity


class Functional(nn.Module):
    """Rectifiers as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.first(x)))


class Modules(Functional):
    """The same with a module."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.first(x)))


@pytest.mark.parametrize("build", [Functional, Modules])
@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_dead_units_are_counted(build: type[nn.Module], count: int) -> None:
    of = problem(build)
    with torch.no_grad():
        of.model.get_parameter("first.bias").fill_(20.0)
        of.model.get_parameter("first.bias")[:count] = -100.0
    seen = plasticity.activity(of, "retain", size=7)
    assert plasticity.dead(seen) == count / 4
    assert plasticity.dormant(seen) == count / 4 if count < 4 else 1.0
    assert of.work == {}


def test_a_unit_is_alive_if_one_row_or_position_makes_it_active() -> None:
    net = nn.Sequential(nn.Conv1d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[[1.0]], [[-1.0]]]))  # type: ignore[operator, union-attr]
        net[0].bias.zero_()  # type: ignore[operator, union-attr]
    x = torch.zeros(5, 1, 6)
    x[3, 0, 2] = 1.0
    of = Problem(net, retain=(x, torch.arange(5) % 4))
    seen = plasticity.Activity()
    with seen, torch.no_grad():
        net[1](net[0](x).movedim(1, 2))  # units last, as in sequences
    assert plasticity.dead(seen) == 0.5
    assert of.work == {}


def test_dormant_units_are_small_beside_their_layer() -> None:
    of = problem(Functional)
    with torch.no_grad():
        of.model.get_parameter("first.weight").zero_()
        of.model.get_parameter("first.bias").copy_(torch.tensor([1.0, 1.0, 1.0, 0.01]))
    seen = plasticity.activity(of, "retain")
    assert plasticity.dead(seen) == 0.0
    assert plasticity.dormant(seen) == 0.25


def test_without_rectifiers_no_unit_is_dead() -> None:
    of = problem()  # tanh
    with pytest.raises(BadInput, match="no ReLU"):
        plasticity.activity(of, "retain")
    assert plasticity.probe(of, "retain").keys() == {"effective_rank", "weight_size", "stable_rank"}


@given(st.integers(1, 6), st.floats(0.1, 100))
def test_ranks_of_equal_directions(k: int, scale: float) -> None:
    matrix = torch.zeros(8, 7)
    matrix[torch.arange(k), torch.arange(k)] = scale
    assert plasticity.effective_rank(matrix) == pytest.approx(k, rel=1e-6)
    assert plasticity.stable_rank(matrix) == pytest.approx(k, rel=1e-6)


def test_ranks_by_hand() -> None:
    matrix = torch.diag(torch.tensor([3.0, 1.0]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert plasticity.effective_rank(matrix) == pytest.approx(math.exp(entropy))
    assert plasticity.stable_rank(matrix) == pytest.approx(10 / 9)
    assert plasticity.effective_rank(torch.zeros(3, 3)) == plasticity.stable_rank(torch.zeros(3, 3)) == 0.0


def test_features_are_the_input_of_the_head() -> None:
    of = problem(Functional)
    expected = F.relu(of.model.get_submodule("first")(rows(30, 6, seed=1)[0])).detach()
    assert torch.allclose(plasticity.features(of, "retain", size=7), expected)
    sizes = [w.abs() for w in (of.model.get_parameter("first.weight"), of.model.get_parameter("head.weight"))]
    mean = float(torch.cat([s.flatten() for s in sizes]).mean().detach())
    assert plasticity.weight_size(of) == pytest.approx(mean, rel=1e-5)


def test_a_fresh_task_is_learned_by_a_copy_and_not_by_dead_units() -> None:
    train, test = stream()
    alive = Problem(Functional(), task="classification", new=train[0].rows)
    before = state(alive)
    x, y = (train[0].rows.batch(torch.arange(N))[c] for c in ("x", "y"))
    learned = plasticity.fresh_task(alive, Tensors({"x": x, "y": y}), test[0].rows, steps=200, lr=0.1)
    assert same(before, state(alive))
    assert alive.work == {}
    with torch.no_grad():
        alive.model.get_parameter("first.bias").fill_(-100.0)
        alive.model.get_parameter("head.bias").zero_()
    dead = plasticity.fresh_task(alive, Tensors({"x": x, "y": y}), test[0].rows, steps=200, lr=0.1)
    assert learned > 0.9
    assert dead <= 0.5


def test_a_fresh_task_asks_all_outputs_whatever_came_before() -> None:
    train, test = stream()
    torch.manual_seed(0)
    learner = Learner(mlp(6, 16, 2 * TASKS), named("naive"), "classification").learn(train[0])
    found = plasticity.fresh_task(learner.problem, train[2].rows, test[2].rows, steps=150, lr=0.2)
    assert found > 0.9


# --- comparison and page


@functools.cache
def outcomes() -> tuple[Outcome, ...]:
    """Two seeds of four methods, traced, and two of them at a budget of memory."""
    plans = {"naive": named("naive"), "er": named("er", buffer=60, replay=8), "ewc": named("ewc")}
    found = []
    for seed in (0, 1):
        for name, plan in plans.items():
            found.append(but(run(plan, seed, every=2), method=name, probes=[{"dead": 0.1 * i} for i in range(3)]))
        once = methods.registry.get("naive")(lr=0.1, epochs=8, batch=BATCH)
        found.append(but(run(once, seed, every=2, experiences=[joint()]), method="joint"))
        for budget in (480, 1920):
            size = resources.rows_within(budget, 48)
            found.append(but(run(named("er", buffer=size, replay=8), seed), method="er", budget=budget))
    return tuple(found)


def but(of: Outcome, **facts: Any) -> Outcome:
    names = ("method", "scenario", "seed", "history", "ledger", "budget", "probes", "settings")
    return Outcome(**{**{name: getattr(of, name) for name in names}, **facts})


def comparison(**facts: Any) -> Comparison:
    return Comparison(**{"name": "Three tasks", "outcomes": outcomes(), "facts": {"data": "made up"}, **facts})


@functools.cache
def shown() -> str:
    return page(comparison())


def test_joint_and_naive_are_always_beside() -> None:
    for line in ("joint", "naive"):
        with pytest.raises(BadInput, match=f"no outcome of '{line}'"):
            comparison(outcomes=[o for o in outcomes() if o.method != line])
    with pytest.raises(BadInput, match="two outcomes"):
        comparison(outcomes=[*outcomes(), outcomes()[0]])
    with pytest.raises(BadInput, match="needs outcomes"):
        comparison(outcomes=[])


def test_figures_are_means_over_seeds_and_pairs() -> None:
    of = comparison()
    mine = [o.history.metrics()["acc"] for o in of.of("class", "er")]
    found = of.figure("class", "er", "acc")
    assert found is not None
    assert (found.mean, found.number) == (pytest.approx(sum(mine) / 2), 2)
    lower = [o.history.metrics()["acc"] for o in of.of("class", "naive")]
    gain = of.beside("class", "er", "naive")
    assert gain is not None
    assert gain.mean == pytest.approx((mine[0] - lower[0] + mine[1] - lower[1]) / 2)
    assert of.figure("class", "joint", "fm") is None
    cost = of.cost("class", "er", "every_task")
    assert cost is not None
    whole = 3 * SEEN * 2  # naive passes (forward and twice backward) of tasks 1, 1 to 2, 1 to 3
    assert cost.mean == pytest.approx((3 * (SEEN + 8 * (STEPS - 1))) / whole)
    with pytest.raises(BadInput, match="did you mean 'naive'"):
        of.of("class", "naiv")


def test_outcomes_of_a_budget_stand_by_themselves() -> None:
    of = comparison()
    assert of.budgets("class") == [480, 1920]
    assert of.methods("class", 480) == ["er"]
    assert [o.budget for o in of.of("class", "er")] == [None, None]
    for budget in (480, 1920):
        stored = of.cost("class", "er", "stored", budget)
        assert stored is not None
        assert stored.mean == budget


def test_a_comparison_that_tells_little_says_so() -> None:
    history = outcomes()[0].history

    def at(method: str, value: float) -> Outcome:
        facts = json.loads(json.dumps(history.to_json()))
        facts["trace"] = None
        for record in facts["records"]:
            record["figures"] = {view: [value] * TASKS for view in record["figures"]}
        return Outcome(method, "class", 0, History.from_json(facts))

    def notes(**values: float) -> list[str]:
        return Comparison("x", [at(name, value) for name, value in values.items()]).uninformative("class")

    assert notes(joint=0.9, naive=0.2, er=0.7, der=0.92) == []
    assert notes(joint=0.9, naive=0.2, er=0.2) == ["er (20.0%) is no better than naive training (20.0%)"]
    assert "above joint" in notes(joint=0.9, naive=0.2, er=0.93)[0]
    assert "nothing to forget" in notes(joint=0.5, naive=0.5)[-1]


def test_it_survives_json() -> None:
    of = comparison()
    again = Comparison.from_json(json.loads(json.dumps(of.to_json())))
    assert again.to_json() == of.to_json()
    assert page(again) == shown()
    with pytest.raises(BadInput, match="no comparison"):
        Comparison.from_json({"name": "x"})


def test_the_page_stands_alone() -> None:
    text = shown()
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=[\"'](?!#)", text)
    assert "url(" not in text
    assert "default-src 'none'" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_the_page_shows_every_method_and_both_lines_first_and_last() -> None:
    table, of = shown().split("<table")[1].split("</table>")[0], comparison()
    means = {name: of.figure("class", name, "acc") for name in ("er", "ewc")}
    best = sorted(means, key=lambda name: -means[name].mean)  # type: ignore[union-attr]
    assert re.findall(r'<th scope="row">(\w+)', table) == ["joint", *best, "naive"]
    for word in ("ACC", "AIA", "forgetting", "LA", "WC-ACC", "cost / joint", "stored", "±"):
        assert word in table
    assert "Stability gap, first task" in shown()
    assert "At equal memory" in shown()


def test_names_are_escaped_and_long_ones_fit(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>\"'{{ 7 * 7 }}" + "verylong" * 12
    renamed = [but(o, method=bad if o.method == "er" else o.method) for o in outcomes()]
    text = page(comparison(name=bad, outcomes=renamed, facts={bad: bad}))
    assert "<script" not in text
    found = browser.laid_out({"plain": shown(), "hostile": text}, tmp_path)
    for each in found.values():
        assert each["scroll"] <= each["width"], each["widest"]
        assert each["loaded"] == []


def test_a_page_of_one_seed_without_traces_and_costs_is_whole() -> None:
    bare = []
    for o in outcomes():
        if o.seed == 0 and o.budget is None:
            facts = {**o.history.to_json(), "trace": None}
            bare.append(but(o, history=History.from_json(facts), ledger=None, probes=()))
    text = page(comparison(outcomes=bare, facts={}))
    assert "Stability gap" not in text
    assert "WC-ACC</th>" not in text
    assert "cost / joint</th>" not in text
    assert "Data and settings" not in text


def test_charts_show_what_was_measured() -> None:
    of = comparison()
    made = {chart.id: chart for chart in charts(of, "class")}
    average = made["class-average"]
    assert isinstance(average, Lines)
    assert {s.name: s.kind for s in average.series} == {
        "naive": "control", "er": "outcome", "ewc": "outcome", "joint": "reference"
    }  # fmt: skip
    naive = next(s for s in average.series if s.name == "naive")
    runs = [o.history for o in of.of("class", "naive")]
    assert naive.y[-1] == pytest.approx(sum(h.metrics()["acc"] for h in runs) / 2)
    line = next(s for s in average.series if s.name == "joint")
    assert list(line.x) == [1, 3]
    assert len(set(line.y)) == 1
    assert all(0 <= low <= high <= 1 for s in average.series for low, high in zip(s.low, s.high, strict=True))
    matrix = made["class-matrix-0"]
    assert isinstance(matrix, Heat)
    assert [[v is None for v in row] for row in matrix.values] == [
        [False, True, True], [False, False, True], [False, False, False]
    ]  # fmt: skip
    trace = made["class-trace-0"]
    assert isinstance(trace, Traces)
    assert trace.switches == [10, 20]
    assert isinstance(made["class-memory"], Lines)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=2000))
def test_thinning_keeps_every_dip(values: list[float]) -> None:
    y = torch.tensor(values, dtype=torch.float64).numpy()
    keep = thinned(y)
    assert keep == sorted(set(keep))
    assert len(keep) <= max(len(y) if len(y) <= 300 else 302, 1)
    assert {keep[0], keep[-1]} == {0, len(y) - 1}
    assert y[keep].min() == y.min()
    assert y[keep].max() == y.max()
