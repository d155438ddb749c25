"""Bad input: one clear line that says what, where and what to do; nothing written, the model untouched."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import oblivio as ob
from oblivio.core.errors import BadInput
from oblivio.core.files import write_tensors
from oblivio.jobs import cache, forget, serving
from oblivio.jobs.job import Job
from oblivio.registry import Spec

JOB: dict[str, Any] = {"data": "digits", "model": {"name": "mlp", "options": {"hidden": [8]}}, "recipe": {"epochs": 1},
                       "forget": "class=3", "method": "finetune"}  # fmt: skip


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(BadInput) as fault:
        act()
    message = str(fault.value)
    assert message
    assert "\n" not in message
    return message


# --- jobs

JOBS: dict[str, tuple[dict[str, Any], str]] = {
    "no such method": ({"method": "salum"}, "no method 'salum'; did you mean 'salun'?"),
    "an alias": ({"method": "ft"}, "'ft' is called 'finetune' here"),
    "no such setting": ({"method": {"name": "salun", "settings": {"kep": 1}}}, "no setting 'kep'; did you mean"),
    "a setting out of range": ({"method": {"name": "salun", "settings": {"keep": 2}}}, "salun: keep = 2"),
    "a method as a piece": ({"method": {"name": "salun", "pieces": ["finetune"]}}, "not a piece that changes another"),
    "no such piece": ({"method": {"name": "salun", "pieces": ["finetun"]}}, "did you mean 'finetune'?"),
    "no such data set": ({"data": "digit"}, "no data set is called 'digit'; did you mean 'digits'?"),
    "an option the data set lacks": ({"data": {"name": "digits", "size": 8}}, "takes no option 'size'"),
    "no such network": ({"model": "small-cn"}, "no network is called 'small-cn'; did you mean 'small-cnn'?"),
    "no such network option": ({"model": {"name": "mlp", "options": {"hiden": [8]}}}, "did you mean 'hidden'?"),
    "no such feature layer": ({"model": {"name": "mlp", "features": "net.hed"}}, "no layer 'net.hed'; did you mean"),
    "no such class": ({"forget": "class=12"}, "12"),
    "no such kind of rows": ({"forget": "clas=1"}, "did you mean 'class'?"),
    "no rows": ({"forget": {"rows": {"where": "y == 3 and y == 4"}}}, "names none of"),
    "no such id": ({"forget": {"rows": {"ids": [5000]}}}, "5000"),
    "all rows": ({"forget": "random=1.0"}, "all 1080 training rows"),
    "a method that refuses random rows": ({"method": "ssd", "forget": "random=0.1"}, "both importances are alike"),
    "a method for another task": ({"method": "boundary_unlearning", "data": "diabetes", "forget": "random=0.1"},
                                  "boundary_unlearning is for classification; this is a regression"),
    "a factory that is not there": ({"model": "no_such_module:factory"}, "no_such_module"),
    "a factory that the module lacks": ({"model": "os.path:jion"}, "did you mean 'join'?"),
    "a factory of no module": ({"model": "os:getcwd"}, "returns a torch.nn.Module"),
    "a recipe that is not there": ({"recipe": "no_such_module:train"}, "no_such_module"),
    "weights that are not there": ({"model": {"name": "mlp", "weights": "none.safetensors"}}, "does not exist"),
    "weights without a network": ({"model": {"weights": "none.safetensors"}}, "say with model.name"),
    "references of unknown make": ({"references": [{"model": "none", "without": [1]}]}, "trained with"),
    "a floor of accuracy for a regression": (
        {"data": "diabetes", "forget": "random=0.1", "guards": {"retain_floor": 0.5}}, "a regression has none"),
    "more processes than there are": ({"processes": 2}, "torchrun --nproc-per-node 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", JOBS)
def test_a_job_that_cannot_be_done(case: str, own_cache: Path, tmp_path: Path) -> None:
    changes, words = JOBS[case]
    assert words in refused(lambda: forget.run(Job.of(**{**JOB, **changes}), tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert list(own_cache.iterdir()) == []


def weighted(path: Path) -> Job:
    return Job.of(**{**JOB, "model": {**JOB["model"], "weights": str(path)}})


def test_weights_that_do_not_fit_and_pickles(own_cache: Path, tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", {"net.head.weight": torch.zeros(10, 9)})
    assert "does not fit the module" in refused(
        lambda: forget.run(weighted(tmp_path / "w.safetensors"), tmp_path / "o")
    )
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    assert "pickle" in refused(lambda: forget.run(weighted(tmp_path / "w.pt"), tmp_path / "o"))
    (tmp_path / "w.pt").rename(tmp_path / "pickle.safetensors")
    assert "not a safetensors" in refused(lambda: forget.run(weighted(tmp_path / "pickle.safetensors"), tmp_path / "o"))
    assert not (tmp_path / "o").exists()
    assert list(own_cache.iterdir()) == []


def test_weights_for_another_task(tmp_path: Path) -> None:
    forget.run(Job.of(**{**JOB, "data": "breast_cancer", "forget": "random=0.1"}), tmp_path / "m")
    bare = Job.of(**{**JOB, "model": {"weights": str(tmp_path / "m")}})
    assert "holds a model for binary; the data is for classification" in refused(
        lambda: forget.run(bare, tmp_path / "out")
    )
    ob.save(nn.Linear(30, 1), tmp_path / "own", task="binary")
    assert "does not fit the module" in refused(lambda: forget.run(weighted(tmp_path / "own"), tmp_path / "out"))


# --- folders


def test_an_output_folder_that_holds_something(own_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "exists and is not empty" in refused(lambda: forget.run(Job.of(**JOB), tmp_path))
    assert "is a file" in refused(lambda: forget.run(Job.of(**JOB), tmp_path / "notes.txt"))
    assert "not a folder that can be written" in refused(
        lambda: forget.run(Job.of(**JOB), tmp_path / "notes.txt" / "o")
    )
    assert [p.name for p in tmp_path.iterdir() if p != own_cache] == ["notes.txt"]
    assert list(own_cache.iterdir()) == []


def test_an_output_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "can be written" in refused(lambda: forget.run(Job.of(**JOB), tmp_path / "out"))
    monkeypatch.undo()

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    assert "Permission denied" in refused(lambda: forget.run(Job.of(**JOB), tmp_path / "out"))


def test_an_interrupted_run_is_neither_output_nor_input(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "job.yaml").write_text(Job.of(**JOB).to_yaml())
    before = sorted(tmp_path.rglob("*"))
    assert f"oblivio resume {run}" in refused(lambda: forget.run(Job.of(**JOB), run))
    assert "interrupted run" in refused(lambda: forget.run(weighted(run), tmp_path / "out"))
    assert "interrupted run" in refused(lambda: ob.load(run))
    assert sorted(tmp_path.rglob("*")) == before


def test_leftovers_of_a_killed_write_are_no_content(tmp_path: Path) -> None:
    (tmp_path / ".job.yaml.123.part").write_text("half")
    forget.run(Job.of(**JOB), tmp_path)
    assert (tmp_path / "report.json").exists()


def test_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,0\n2,1\n")
    monkeypatch.setitem(sys.modules, "pandas", None)
    data = {"name": str(tmp_path / "t.csv"), "roles": {"b": "target"}, "task": "classification"}
    words = refused(lambda: forget.run(Job.of(**{**JOB, "data": data}), tmp_path / "out"))
    assert "pandas is not installed; run: pip install 'oblivio[tables]'" in words


# --- problems

X, Y = torch.rand(30, 4), torch.arange(30) % 3


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3))


def problem(x: Any = X, y: Any = Y, **more: Any) -> Any:
    rows = {"forget": (x[:10], y[:10]), "retain": (x[10:], y[10:]), "task": "classification"}
    return ob.Problem(net(), **{**rows, **more})


def broken(value: float) -> torch.Tensor:
    return X.clone().index_put_((torch.tensor([3, 12]), torch.tensor(1)), torch.tensor(value))


PROBLEMS: dict[str, tuple[Callable[[], Any], str]] = {
    "no rows to forget": (lambda: problem(forget=(X[:0], Y[:0])), "forget: no rows"),
    "no forget at all": (lambda: ob.forget(ob.Problem(net(), retain=(X, Y)), "finetune"), "give forget="),
    "rows on both sides": (
        lambda: ob.Problem(net(), forget=(X[:10], Y[:10], range(10)), retain=(X, Y, range(30))), "overlap in 10 rows"),
    "an unknown goal": (lambda: problem(goal="retrain"), "did you mean 'retrained'?"),
    "labels without an output": (lambda: ob.forget(problem(y=Y * 2), "finetune"), "labels outside 0 to 2"),
    "negative labels": (lambda: ob.forget(problem(y=Y - 1), "finetune"), "labels outside 0 to 2"),
    "NaN inputs": (lambda: ob.forget(problem(x=broken(float("nan"))), "finetune"), "NaN or infinite inputs"),
    "infinite inputs": (lambda: ob.forget(problem(x=broken(float("inf"))), "finetune"), "NaN or infinite inputs"),
    "inputs of another shape": (lambda: ob.forget(problem(x=torch.rand(30, 5)), "finetune"), "with the shape (5,)"),
    "no retained rows": (lambda: ob.forget(problem(retain=None), "finetune"), "finetune needs the rows to keep"),
    "no labels": (lambda: ob.forget(problem(retain={"x": X}), "finetune"), "needs labels, and retain has none"),
    "neither rows nor record": (
        lambda: ob.forget(problem(retain=None), "ssd"), "does not serve requests to forget some rows"),
    "no method": (lambda: ob.forget(problem(), "finetuna"), "did you mean 'finetune'?"),
    "no plan": (lambda: ob.forget(problem(), 3), "a method is a name or a plan"),  # type: ignore[arg-type]
    "settings of a plan": (lambda: ob.forget(problem(), ob.methods.finetune(), lr=1), "settings already; give lr"),
    "a piece on an edit": (
        lambda: ob.forget(problem(), ob.methods.ssd(), pieces=[lambda plan: plan.but(where="model.*")]),
        "direct edit of the weights"),
    "a source that is none": (lambda: problem(retain=3), "retain is a int"),
    "a learner's method": (lambda: ob.learner(net(), "finetun", task="classification"), "did you mean 'finetune'?"),
}  # fmt: skip


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_problem_that_cannot_be_served(case: str) -> None:
    act, words = PROBLEMS[case]
    assert words in refused(act)


def test_a_need_is_told_with_how_to_meet_it() -> None:
    spec = Spec("m", "m", needs=("test", "trace|proxy"))
    assert "m needs test rows: give test=" in refused(lambda: serving.check(problem(), spec))
    words = refused(lambda: serving.check(problem(test=(X, Y)), spec))
    made = "the record 'trace', made at training by records.make('trace', problem)"
    assert f"{made}: give records={{'trace': ...}} or rows that stand in" in words
    serving.check(problem(test=(X, Y), records={"trace": {}}), spec)
    serving.check(problem(test=(X, Y), proxy=(X, Y)), spec)


def test_the_kind_of_a_request() -> None:
    gone = Y == 1
    whole = ob.Problem(net(), forget=(X[gone], Y[gone]), retain=(X[~gone], Y[~gone]))
    assert (serving.kind(whole), serving.forgotten_classes(whole)) == ("class", [1])
    assert serving.kind(problem()) == "rows"
    real = ob.Problem(nn.Linear(4, 1), forget=(X[:3], X[:3, 0] + 5), retain=(X[3:], X[3:, 0]))
    assert serving.kind(real) == "rows"


def test_nothing_was_cached_by_any_of_these(own_cache: Path) -> None:
    assert cache.entries() == []
