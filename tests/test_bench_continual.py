"""The comparison of continual methods: what it runs, keeps, makes equal, and what a fault of one method does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oblivio import methods
from oblivio.audits.continual import Comparison
from oblivio.audits.continual.comparison import JOINT, NAIVE
from oblivio.bench import comparison, continual, continual_memory, continual_tuning
from oblivio.bench.continual import Plan, Seed
from oblivio.cli import evidence, main
from oblivio.cli.codes import FAILED, FINISHED
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.jobs.course import Course
from oblivio.registry import method
from oblivio.terms import fit

ROW = 64 * 4 + 3 * 8  # of digits: x in float32, y, task and id
LOGITS = 10 * 4
BASE = Plan(
    "split-digits", ["class"], ["er"], seeds=2, options={"tasks": 2}, shared={"epochs": 0.1, "batch": 16},
    model="mlp", model_options={"hidden": [8]},
)  # fmt: skip


def small(**changes: Any) -> Plan:
    return dataclasses.replace(BASE, **changes)


@pytest.fixture(autouse=True)
def _cache(own_cache: Path) -> None:
    """Nothing is kept from other tests."""


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The courses that are run, in order."""
    found: list[str] = []
    run = Course.run

    def noted(self: Course, *given: Any) -> Any:
        found.append(f"{self.stream.scenario} {self.seed} {self.name}")
        return run(self, *given)

    monkeypatch.setattr(Course, "run", noted)
    return found


@edit
def breaks(problem: Problem) -> None:
    raise ZeroDivisionError("no rows\nto divide by")


@method(kind="continual", paper="none", needs=("new",), tasks=("classification",))
def broken(turn: int = 1) -> Stage:
    """A method with a fault."""
    return Descent(fit("new"), over="new", epochs=0.1, batch=16) >> breaks()


@pytest.fixture
def fault() -> Iterator[str]:
    methods.add(broken)
    yield "broken"
    del methods.registry._own["broken"]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: str) -> SimpleNamespace:
        capsys.readouterr()
        code = main(["bench", "continual", *words])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


COMMAND = ("--stream", "split-digits", "--tasks", "2", "--seeds", "1", "--set", "epochs=0.1", "--set", "batch=16",
           "--hidden", "8", "--out", "there")  # fmt: skip


# --- what is run, and what is kept


def test_joint_and_naive_training_are_always_there_and_nothing_is_run_twice(runs: list[str]) -> None:
    found = continual.compare(BASE)
    assert found.comparison is not None
    assert found.comparison.methods("class") == [JOINT, NAIVE, "er"]
    assert [*found.failed, *found.refused, *found.notes] == []
    assert runs == [f"class {seed} {name}" for seed in (0, 1) for name in (JOINT, NAIVE, "er")]
    again = continual.compare(BASE)
    assert len(runs) == 6
    assert again.comparison is not None
    assert again.comparison.to_json() == found.comparison.to_json()
    continual.compare(small(names=["er", "naive", "lwf"]))
    assert runs[6:] == ["class 0 lwf", "class 1 lwf"]


def test_a_comparison_that_was_stopped_goes_on_where_it_was(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(words: str, done: int, total: int) -> None:
        assert total == 6
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continual.compare(BASE, stop)
    assert len(runs) == 4
    continual.compare(BASE)
    assert runs[4:] == ["class 1 naive", "class 1 er"]


@pytest.mark.parametrize(
    "change",
    [
        {"shared": {"epochs": 0.1, "batch": 8}}, {"settings": {"er": {"beta": 2.0}}}, {"rows": 7},
        {"options": {"tasks": 5}}, {"model_options": {"hidden": [9]}}, {"scenarios": ["domain"]},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_determines_an_outcome_is_in_its_key(change: dict[str, Any]) -> None:
    def key(plan: Plan, number: int = 0) -> str:
        seed = Seed(plan, plan.scenarios[0], number)
        return seed.key(seed.course("er"))

    assert key(BASE) == key(small(seeds=3, names=["er", "lwf"]))
    assert key(BASE) != key(BASE, 1)
    assert key(BASE) != key(small(**change))


def test_the_seed_draws_the_order_of_the_classes_unless_they_are_listed() -> None:
    classes = {Seed(BASE, "class", number).stream.train[0].classes for number in range(3)}
    assert len(classes) == 3
    given = small(options={"tasks": [[3, 1], [0, 2]]})
    assert {Seed(given, "class", number).stream.train[0].classes for number in range(3)} == {(1, 3)}
    assert len(Seed(small(stream="rotated-digits", options={"tasks": 2}), "domain", 1).stream.train) == 2


def test_all_methods_of_a_seed_start_from_the_same_weights() -> None:
    seed = Seed(BASE, "class", 0)
    assert seed.course("er").model is seed.course(JOINT).model
    assert len(seed.course(JOINT).experiences) == 1
    assert repr(seed.course(JOINT).plan) == repr(seed.course(NAIVE).plan)


def test_shared_settings_go_over_those_of_single_methods() -> None:
    plan = small(settings={"er": {"lr": 0.3, "epochs": 9}, "naive": {"lr": 0.2}})
    assert plan.of("er") == {"lr": 0.3, "epochs": 0.1, "batch": 16}
    assert plan.of(JOINT) == plan.of(NAIVE) == {"lr": 0.2, "epochs": 0.1, "batch": 16}


# --- faults


def test_a_method_that_fails_does_not_stop_the_others(fault: str) -> None:
    found = continual.compare(small(names=[fault, "er"], seeds=1))
    assert found.failed == {"class, seed 0: broken": "ZeroDivisionError: no rows to divide by"}
    assert found.comparison is not None
    assert found.comparison.methods("class") == [JOINT, NAIVE, "er"]


def test_a_scenario_without_its_lines_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = continual.attempt
    monkeypatch.setattr(
        continual, "attempt", lambda seed, name, watch: "gone" if name == JOINT else attempt(seed, name, watch)
    )
    found = continual.compare(small(seeds=1))
    assert found.comparison is None
    assert found.failed == {"class, seed 0: joint": "gone"}


def test_a_method_that_is_not_for_a_scenario_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = methods.spec
    only = dataclasses.replace(spec("er"), scenarios=("task",))
    monkeypatch.setattr(methods, "spec", lambda name: only if name == "er" else spec(name))
    found = continual.compare(small(seeds=1))
    assert found.refused == {"class: er": "er is not for the scenario class, but for task"}
    assert not found.failed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scenarios": ["clas"]}, "'class'"), ({"seeds": 0}, "at least one"), ({"names": ["salun"]}, "continual"),
        ({"names": ["err"]}, "'er'"), ({"shared": {"epoch": 1}}, "'epochs'"), ({"shared": {"lr": -1}}, "lr"),
        ({"rows": 5, "bytes": 5}, "not both"), ({"rows": 0}, "above 0"), ({"options": {"order": 1}}, "order"),
        ({"settings": {"er": {"betta": 1}}}, "'beta'"), ({"stream": "split-digitz"}, "'digits'"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_told_before_anything_is_run(
    changes: dict[str, Any], words: str, runs: list[str]
) -> None:
    with pytest.raises(BadInput, match=words):
        continual.compare(small(**changes))
    assert not runs


# --- equal memory


@pytest.mark.parametrize("name", ["er", "der_pp", "gdumb", "icarl"])
def test_the_setting_that_is_the_number_of_stored_rows(name: str) -> None:
    setting = continual_memory.setting(name, {})
    assert setting is not None
    assert [continual_memory.capacity(name, {setting: n}) for n in (40, 41)] == [40, 41]
    assert continual_memory.unsized(name, {}) is None


@pytest.mark.parametrize("name", ["ewc", "naive", "lwf"])
def test_a_method_that_stores_no_rows_has_none(name: str) -> None:
    assert continual_memory.setting(name, {}) is None
    assert continual_memory.unsized(name, {}) is None


def test_every_method_that_stores_rows_has_such_a_setting_or_is_named() -> None:
    for name in continual.all_methods():
        if continual_memory.capacity(name, {}) and continual_memory.setting(name, {}) is None:
            assert name in str(continual_memory.unsized(name, {}))


@pytest.mark.parametrize(("name", "size"), [("er", ROW), ("der_pp", ROW + LOGITS), ("gdumb", ROW)])
def test_bytes_of_a_stored_row(name: str, size: int) -> None:
    seed = Seed(BASE, "class", 0)
    of = continual_memory.setting(name, {})
    assert of is not None
    assert continual_memory.bytes_a_row(name, BASE.of(name), of, seed.stream, seed.model) == size


def test_equal_rows_and_equal_bytes(runs: list[str]) -> None:
    rows = continual.compare(small(names=["er", "der_pp"], seeds=1, rows=9)).comparison
    assert rows is not None
    assert [o.ledger.rows for o in rows.outcomes] == [0, 0, 9, 9]
    assert [o.budget for o in rows.outcomes] == [None] * 4
    budget = 9 * ROW + 5
    equal = continual.compare(small(names=["er", "der_pp", "lwf"], seeds=1, bytes=budget)).comparison
    assert equal is not None
    assert [o.ledger.rows for o in equal.outcomes] == [0, 0, 9, budget // (ROW + LOGITS), 0]
    assert [o.budget for o in equal.outcomes] == [None, None, budget, budget, None]
    assert [o.ledger.carried.get("rows", 0) for o in equal.outcomes[2:4]] == [9 * ROW, 7 * (ROW + LOGITS)]
    assert len(runs) == 4 + 2  # er with nine rows was there; der_pp has seven of them, lwf is new


def test_a_budget_that_holds_no_row_is_a_fault_of_the_methods_that_need_one() -> None:
    found = continual.compare(small(names=["er", "lwf"], seeds=1, bytes=ROW - 1))
    assert "raise the budget" in found.failed["class, seed 0: er"]
    assert found.comparison is not None
    assert "lwf" in found.comparison.methods("class")


def test_a_method_that_stores_more_in_the_end_is_named() -> None:
    """One whose setting holds for a part of what it stores, such as a class or an expert."""
    found = continual.compare(small(names=["er"], seeds=1, rows=9)).comparison
    assert found is not None
    assert continual.notes(small(rows=9), found.outcomes) == []
    assert continual.notes(small(rows=8), found.outcomes) == [
        f"er stored up to 9 rows ({9 * ROW:,} bytes), more than the memory that was given"
    ]
    assert continual.notes(small(bytes=9 * ROW), found.outcomes) == []
    assert len(continual.notes(small(bytes=9 * ROW - 1), found.outcomes)) == 1
    assert continual.notes(BASE, found.outcomes) == []


# --- the command


def test_the_command_prints_a_table_and_writes_a_record_and_a_page(cli: Callable[..., Any]) -> None:
    said = cli(*COMMAND, "--scenario", "class,domain", "--methods", "er,lwf", "--buffer", "10")
    assert (said.code, said.err) == (FINISHED, "")
    assert [
        word for word in (" joint ", " er ", " lwf ", " naive ", "domain-incremental") if word not in said.out
    ] == []
    record = json.loads(Path("there/split-digits.json").read_text())
    assert record["command"] == (
        "oblivio bench continual --stream split-digits --scenario class,domain --methods er,lwf --set epochs=0.1 "
        "--set batch=16 --buffer 10 --seeds 1 --tasks 2 --hidden 8"
    )
    assert {"commit", "versions", "machine", "facts"} <= record.keys()
    results = Comparison.from_json(record)
    assert results.scenarios == ["class", "domain"]
    found = record["figures"]["class"]["er"]
    assert found["acc"] == [round(results.figure("class", "er", "acc").mean, 5), None]
    assert found["rows"] == [10, None]
    text = Path("there/split-digits.json").read_text()
    assert sum(line.startswith('{"budget"') for line in text.splitlines()) == len(results.outcomes) == 8
    assert "Class-incremental" in Path("there/split-digits.html").read_text()


def test_the_exit_code_says_that_a_method_failed(cli: Callable[..., Any], fault: str) -> None:
    said = cli(*COMMAND, "--methods", f"er,{fault}")
    assert said.code == FAILED
    assert "failed: class, seed 0: broken: ZeroDivisionError: no rows to divide by" in said.out
    assert " er " in said.out
    assert json.loads(Path("there/split-digits.json").read_text())["failed"].keys() == {"class, seed 0: broken"}


def test_bad_input_is_one_line_and_writes_nothing(cli: Callable[..., Any]) -> None:
    said = cli(*COMMAND, "--methods", "er", "--scenario", "clas")
    assert (said.code, said.out) == (2, "")
    assert "'class'" in said.err
    assert not Path("there").exists()


def test_tuned_settings_and_methods_that_are_left_out(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plans: list[Plan] = []

    def compare(plan: Plan, *_: Any) -> continual.Found:
        plans.append(plan)
        return continual.Found(None, {}, {})

    monkeypatch.setattr(continual, "compare", compare)
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    for name in ("er", "lwf"):
        (tuned / f"{name}.json").write_text(json.dumps({"method": name, "settings": {"lr": 0.1}}))
    cli("--stream", "split-digits", "--tuned", str(tuned))
    cli("--stream", "split-digits", "--but", "er-ace,ewc")
    assert (plans[0].names, plans[0].settings["er"]) == (["er", "lwf"], {"lr": 0.1})
    assert set(continual.all_methods()) - set(plans[1].names) == {"er_ace", "ewc"}


def test_options_as_they_are_typed() -> None:
    assert evidence.flags({"a": None, "b": ["x=1", "y=[1, 2]"], "c": 3}) == "--b x=1 --b 'y=[1, 2]' --c 3"


# --- tuning


def tuning(**changes: Any) -> Plan:
    return small(options={"tasks": 2, "valid": 0.2}, **changes)


def test_the_budget_is_not_searched() -> None:
    assert continual_tuning.searched(tuning(), "er", {}).keys() == {"beta", "weights", "lr"}
    assert continual_tuning.searched(tuning(shared={"lr": 0.1}), "er", {}).keys() == {"beta", "weights"}
    assert "replay" in continual_tuning.searched(tuning(), "er", {"replay": "8:16"})
    with pytest.raises(BadInput, match="--space"):
        continual_tuning.searched(tuning(shared={"lr": 0.1, "cutmix": 0, "beta": 1, "weights": "equal"}), "er", {})


def test_a_trial_is_measured_on_rows_that_are_neither_learned_nor_tested() -> None:
    stream = Seed(tuning(), "class", 100).stream
    held = continual_tuning.validated(stream)
    assert held.train == stream.train
    for mine, experience in zip(held.test, stream.train, strict=True):
        assert experience.valid is not None
        assert mine.rows.ids.tolist() == experience.valid.ids.tolist()
        assert not set(mine.rows.ids.tolist()) & {i for e in stream.train for i in e.rows.ids.tolist()}
    with pytest.raises(BadInput, match="--valid"):
        continual_tuning.validated(Seed(BASE, "class", 0).stream)
    with pytest.raises(BadInput, match="one experience a task"):
        continual_tuning.validated(Seed(tuning(stream="blurry-digits"), "class", 0).stream)


def test_the_best_trial_is_found_and_the_first_is_at_the_defaults() -> None:
    pytest.importorskip("optuna")
    told: list[str] = []
    found = continual_tuning.tune(tuning(), trials=3, seeds=(100,), given={"lr": "1e-4:0.2"}, tell=told.append)
    assert len(told) == len(found.tried) == 3
    assert found.tried[0]["settings"] == {"beta": 1.0, "weights": "equal", "lr": 0.05}
    assert found.default == found.tried[0]["accuracy"]
    assert found.accuracy == max(each["accuracy"] for each in found.tried)
    assert {"settings": found.settings, "accuracy": found.accuracy} in found.tried
    case = Seed(tuning(), "class", 100)
    again = continual_tuning.accuracy(case, continual_tuning.validated(case.stream), "er", found.settings)
    assert again == found.accuracy


def test_a_trial_that_diverges_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Seed(tuning(), "class", 100)
    held = continual_tuning.validated(case.stream)
    assert continual_tuning.accuracy(case, held, "naive", {"lr": 1e20}) == 0.0


def test_tuning_by_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    words = [
        "tune",
        "er",
        "--stream",
        "split-digits",
        "--tasks",
        "2",
        "--hidden",
        "8",
        "--trials",
        "1",
        "--buffer",
        "9",
    ]
    file = tmp_path / "er.json"
    assert main([*words, "--set", "epochs=0.1", "--set", "batch=16", "--json", str(file)]) == FINISHED
    assert "at the settings found" in capsys.readouterr().out
    record = json.loads(file.read_text())
    assert (record["method"], record["seeds"], record["shared"]["rows"]) == ("er", [100, 101], 9)
    assert record["command"].startswith("oblivio tune er --stream split-digits --scenario class --set epochs=0.1")
    assert comparison.tuned(tmp_path) == {"er": record["settings"]}
    for wrong in ([], ["--problem", "digits-class", "--stream", "split-digits"]):
        assert main(["tune", "er", *wrong]) == 2
        assert "--stream" in capsys.readouterr().err
