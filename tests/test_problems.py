"""Standard problems: what they hold, that nothing stale comes back, how they are listed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oblivio import methods, problems
from oblivio.audits.audit import audit
from oblivio.claims.mufac_mucac import nomus
from oblivio.cli import main
from oblivio.core.errors import BadInput
from oblivio.data.columns import column
from oblivio.jobs.serving import kind
from oblivio.problems import kept as beside
from oblivio.problems import loading, pool, table, worst
from oblivio.problems.table import Spec

DIGITS = [name for name in problems.names() if name.startswith(("digits-", "diabetes-", "tumours-"))]


def brief(name: str) -> Spec:
    """The problem with a training that takes a moment."""
    return problems.spec(name).but(recipe={"epochs": 1}, options={"hidden": [8]})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OBLIVIO_CACHE", str(tmp_path))
    return tmp_path


# --- the table


def test_every_problem_is_there_on_every_set_of_images() -> None:
    needed = ("class", "random", "subclass", "poison", "labels", "group", "imbalanced", "worst")
    images = ("digits", "fashion", "cifar10", "cifar100")
    assert {f"{data}-{name}" for data in images for name in needed} <= set(problems.names())
    assert {"digits-memorised", "digits-identity", "digits-noisy", "diabetes-rows"} <= set(problems.names())
    assert {f"{name}-{what}" for name in ("cora", "citeseer") for what in ("nodes", "edges", "features")} <= set(
        problems.names()
    )


@pytest.mark.parametrize("name", problems.names())
def test_a_set_up_takes_its_settings(name: str) -> None:
    spec = problems.spec(name)
    assert spec.name == name
    assert set(spec.settings) <= set(loading.taken(spec))


def test_unknown_names_settings_and_fields_are_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="no problem 'digits-clas'; did you mean 'digits-class'"):
        problems.spec("digits-clas")
    with pytest.raises(BadInput, match="digits-poison has no setting 'knwon'; did you mean 'known'"):
        problems.load("digits-poison", knwon=0.1)
    with pytest.raises(BadInput, match="no field 'epochs'"):
        problems.spec("digits-poison").but(epochs=3)
    with pytest.raises(BadInput, match="no record 'importence'; did you mean 'importance'"):
        problems.load(brief("digits-class"), references=0, records=("importence",))


def test_what_is_changed_is_laid_over_what_there_is() -> None:
    spec = problems.spec("digits-subclass").but(settings={"fine": 4}, rows=100)
    assert (spec.settings["fine"], spec.rows, spec.recipe["epochs"]) == (4, 100, 60)
    assert spec.settings["above"] == problems.spec("digits-subclass").settings["above"]


# --- loading


@pytest.mark.parametrize("name", DIGITS)
def test_a_problem_holds_what_it_says(name: str) -> None:
    spec = brief(name)
    case = problems.load(spec, references=1)
    start = case.start
    assert {"forget", "retain", "train", "valid", "test", "proxy"} <= set(start.sources)
    assert (kind(start), start.goal, start.task.name) == (spec.kind, spec.goal, spec.task)
    ids = {on: set(start.source(on).ids.tolist()) for on in ("forget", "retain", "train", "valid", "test")}
    assert ids["forget"] | ids["retain"] == ids["train"]
    assert not ids["train"] & (ids["valid"] | ids["test"])
    assert start.source("proxy").columns == ("x",)
    assert ("affected" in start.sources) == spec.setup.startswith("poisoned.")
    assert len(case.references) == 1
    assert case.after(methods.finetune(epochs=1)).model is not start.model


def test_no_reference_of_a_poisoned_problem_saw_a_manipulated_row(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def train(self: object, rows: object, seed: int) -> torch.nn.Module:
        seen.append(rows)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    monkeypatch.setattr("oblivio.problems.pool.Trainer.original", train)
    start = problems.load("digits-poison", references=2, known=0.5).start
    affected = start.source("affected")
    known = column(affected, "known") == 1
    assert set(affected.ids[known].tolist()) == set(start.source("forget").ids.tolist())
    assert (~known).sum() == known.sum() == 27
    assert set(affected.ids[~known].tolist()) <= set(start.source("retain").ids.tolist())
    assert (column(start.source("forget"), "y") == 0).all()
    assert (column(affected, "y") != 0).all()
    for rows in seen[1:]:
        assert not set(rows.ids.tolist()) & set(affected.ids.tolist())


@pytest.mark.parametrize("name", ["digits-poison", "digits-labels", "digits-confused"])
def test_manipulated_rows_have_true_labels_in_affected_and_false_ones_in_training(name: str) -> None:
    start = problems.load(brief(name), references=0).start
    affected, train = start.source("affected"), start.source("train")
    there = [train.ids.tolist().index(i) for i in affected.ids.tolist()]
    assert (column(train, "y")[there] != column(affected, "y")).all()
    assert np.array_equal(column(train, "x")[there], column(affected, "x"))


def test_most_rows_that_go_are_of_the_small_group() -> None:
    start = problems.load(brief("digits-group"), references=0).start
    assert [round(float(column(start.source(on), "group").mean()), 1) for on in ("train", "forget", "test")] == [
        0.2, 0.9, 0.2,
    ]  # fmt: skip


def test_people_of_held_out_and_test_rows_are_others() -> None:
    start = problems.load(brief("digits-identity"), references=0).start
    people = [set(column(start.source(on), "group").tolist()) for on in ("forget", "retain", "valid", "test")]
    assert list(map(len, people)) == [6, 54, 20, 20]
    assert len(set.union(*people)) == 100


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("digits-poison", {"known": 0}, "known = 0"),
        ("digits-poison", {"share": 1.5}, "share = 1.5"),
        ("digits-poison", {"target": 11}, "target 11"),
        ("digits-group", {"dominated": 3}, "to be drawn from"),
        ("digits-identity", {"gone": 60}, "60 of 60 people"),
        ("digits-worst", {"share": 1}, "some must go and some stay"),
        ("digits-subclass", {"fine": 12}, "class 12"),
        ("digits-imbalanced", {"ratio": 1000}, "ratio"),
    ],
)
def test_settings_that_make_no_problem_are_refused(name: str, settings: dict[str, float], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        problems.load(brief(name), references=0, **settings)


# --- what is kept


def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every training."""
    from oblivio.jobs import cache

    count, real = [], cache.train

    def train(*words: object, **named: object) -> object:
        count.append(1)
        return real(*words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "train", train)
    return count


def test_models_are_trained_once_and_a_changed_setting_never_gets_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    count, spec = trained(monkeypatch), brief("digits-poison")
    problems.load(spec, references=1)
    problems.load(spec, references=1)
    assert len(count) == 2
    problems.load(spec, references=1, known=0.6)  # the original and the reference are as they were
    assert len(count) == 2
    changed = [{"share": 0.1}, {"target": 1}, {"size": 2}]
    places = set()
    for settings in changed:
        before = len(count)
        problems.load(spec, references=0, **settings)
        assert len(count) == before + 1, settings
    for other in [spec, spec.but(recipe={"lr": 0.1}), spec.but(options={"hidden": [9]}), spec.but(rows=900),
                  spec.but(scaled=True), *(spec.but(settings=s) for s in changed)]:  # fmt: skip
        for seed, valid in [(0, 0.1), (1, 0.1), (0, 0.2)]:
            start = loading.pool_of(other, seed, valid)
            places.add(start.trainer.place(loading.divide(other, start).train, seed))
    assert len(places) == 8 * 3


def test_a_record_is_made_once_and_goes_with_its_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, spec = [], brief("digits-class")
    real = pool.records.make
    monkeypatch.setattr(pool.records, "make", lambda *words: made.append(1) or real(*words))
    first, again = (problems.load(spec, references=0, records=("importance",)).start.records for _ in range(2))
    assert len(made) == 1
    assert all(torch.equal(first["importance"][n], again["importance"][n]) for n in first["importance"])
    problems.load(spec, seed=1, references=0, records=("importance",))
    assert len(made) == 2
    from oblivio.jobs.cache import clear

    clear()
    assert list((cache / "models").glob("*/derived")) == []


def test_what_is_kept_depends_on_all_that_made_it(tmp_path: Path) -> None:
    values = {"a": torch.arange(3), "b": [1, "two", {"c": None}]}
    assert beside.kept(tmp_path, "x", {"n": 1}, lambda: values)["b"] == values["b"]
    assert beside.kept(tmp_path, "x", {"n": 1}, lambda: 1 / 0)["a"].tolist() == [0, 1, 2]
    assert beside.kept(tmp_path, "x", {"n": 2}, lambda: "other") == "other"


@pytest.mark.parametrize("kind", ["node", "edge", "feature"])
def test_a_graph_is_trained_once_and_a_changed_share_never_gets_an_old_reference(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_geometric")
    from oblivio.problems import graphs

    count, real = [], graphs.trained
    monkeypatch.setattr(graphs, "trained", lambda *words, **named: count.append(1) or real(*words, **named))
    spec = problems.spec("cora-nodes").but(dataset="blocks", recipe={"steps": 2}, settings={"kind": kind})
    case, again = problems.load(spec, references=1), problems.load(spec, references=1)
    assert len(count) == 2
    assert torch.equal(case.start.predict("forget"), again.start.predict("forget"))
    assert case.start.task.name == spec.task
    problems.load(spec, references=1, share=0.1)
    assert len(count) == 3  # a reference; the original is the same
    problems.load(spec.but(recipe={"steps": 3}), references=1)
    assert len(count) == 5
    with pytest.raises(BadInput, match="cora-nodes has no setting 'shar'; did you mean 'share'"):
        problems.load(spec, shar=0.1)


# --- the search for the worst set


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=60), st.integers(1, 2))
def test_the_projection_is_the_nearest_point_of_its_sum(values: list[float], total: int) -> None:
    weights = torch.tensor(values, dtype=torch.float64)
    found = worst.project(weights, total)
    assert abs(float(found.sum()) - total) <= 1e-3
    assert ((found >= 0) & (found <= 1)).all()
    free = (found > 1e-6) & (found < 1 - 1e-6)  # all of these are moved by the same shift
    shift = (weights - found)[free]
    assert shift.numel() < 2 or float(shift.max() - shift.min()) < 1e-6


def test_the_search_finds_rows_that_stay_easy_and_the_reverse_those_that_do_not() -> None:
    start = loading.pool_of(problems.spec("digits-worst").but(recipe={"epochs": 10}), 0, 0.1)
    model = start.trainer.original(start.train, 0)
    search = worst.Search(count=100, rounds=3)
    hard = worst.selected(model, start.train, "classification", 0, search)
    easy = worst.selected(model, start.train, "classification", 0, replace(search, easiest=True))
    assert abs(float(hard.sum()) - 100) < 1e-3
    losses = torch.nn.functional.cross_entropy(
        model(torch.as_tensor(column(start.train, "x"))), torch.as_tensor(column(start.train, "y")), reduction="none"
    ).detach()
    assert float(losses[hard > 0.5].mean()) < float(losses.mean()) < float(losses[easy > 0.5].mean())


def test_sign_descent_moves_every_weight_by_the_rate() -> None:
    found = worst.Sign()({"w": torch.tensor([-2.0, 0.0, 0.1])}, None)  # type: ignore[arg-type]
    assert found["w"].tolist() == [-1, 0, 1]


# --- figures


def test_nomus_is_the_published_figure() -> None:
    """Of the original, the retrained model's bounds, and the ends of the range."""
    assert round(nomus(0.5951, 0.2136), 3) == 0.584
    assert (nomus(1, 0), nomus(0, 0.5), nomus(0.3, 0.1, lam=1)) == (1, 0, 0.3)


def test_an_audit_takes_a_case_and_a_clean_model_is_what_a_poisoned_problem_asks_for() -> None:
    case = problems.load("digits-poison", references=1)
    report = audit(case.start, case.subjects(fresh=case.never()), case.classes)
    values = next(f["values"] for f in report["figures"] if f["id"] == "affected")
    assert values["original"]["value"] < 0.1
    assert values["fresh"]["value"] > 0.9
    assert report.verdict.word == "ACCEPTED"


# --- the command line


def test_problems_are_listed_and_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["problems"]) == 0
    said = capsys.readouterr().out
    assert [name for name in problems.names() if f" {name} " not in said] == []
    assert main(["problems", "digits-poison"]) == 0
    said = capsys.readouterr().out
    assert "like a model that never saw a manipulated row" in said
    assert 'oblivio.problems.load("digits-poison", seed=0)' in said
    assert main(["problems", "digits-posion"]) == 2
    assert "did you mean 'digits-poison'" in capsys.readouterr().err


def test_no_list_or_help_imports_torch() -> None:
    commands = [["problems"], ["problems", "--help"], ["problems", "cifar100-subclass"]]
    code = f"import sys; from oblivio.cli import main\nfor words in {commands!r}:\n    main(words)\n"
    code += "    assert 'torch' not in sys.modules, words"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_details_say_where_labels_come_from() -> None:
    from oblivio.cli.problems import details

    assert "labels from column coarse" in details(table.spec("cifar100-class"))["Data"]
    assert "first 12,000" in details(table.spec("fashion-class"))["Data"]
