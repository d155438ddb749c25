"""The main job from end to end on tiny data: what it writes, what it repeats, what it goes on with."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from small import found as figure
from torch import nn

import oblivio as ob
from oblivio import artefact
from oblivio.audits.verdict import named
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.files import write_tensors
from oblivio.jobs import cache, forget
from oblivio.jobs.job import Job

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")


def job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "data": "digits", "model": {"name": "mlp", "options": {"hidden": [8]}}, "recipe": {"epochs": 2},
        "forget": "class=3", "method": {"name": "finetune", "settings": {"epochs": 1}},
    }  # fmt: skip
    return Job.of(**{**fields, **changes})


def bits(folder: Path) -> bytes:
    return (folder / "model" / artefact.WEIGHTS).read_bytes()


def values(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())["figures"]


def test_a_job_writes_model_job_log_and_report(tmp_path: Path) -> None:
    outcome = forget.run(job(references=2), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "job.yaml", "log.jsonl", "model", "report.html", "report.json", "rows.parquet",
    ]  # fmt: skip
    assert values(tmp_path / "out") == outcome.report["figures"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["original", "method", "reference", "reference", "audit", "end"]
    again = ob.load(tmp_path / "out")
    x = outcome.problem.source("test").batch(torch.arange(5))["x"]
    assert torch.equal(again(x), outcome.model(x))
    assert "2 retrained" in outcome.table()


def test_the_written_job_shows_every_default_and_means_the_same(tmp_path: Path) -> None:
    forget.run(job(), tmp_path / "one")
    written = yaml.safe_load((tmp_path / "one" / "job.yaml").read_text())
    assert written["method"]["settings"] == {"lr": 0.01, "epochs": 1, "batch": 64, "wd": 5e-4, "optimiser": "sgd"}
    assert written["data"]["valid"] == 0.1
    assert written["recipe"]["optimiser"] == "adamw"
    forget.run(Job.load(tmp_path / "one" / "job.yaml"), tmp_path / "two")
    assert bits(tmp_path / "one") == bits(tmp_path / "two")
    assert (tmp_path / "one" / "job.yaml").read_text() == (tmp_path / "two" / "job.yaml").read_text()


def test_the_log_holds_no_inputs(tmp_path: Path) -> None:
    forget.run(job(), tmp_path)
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        assert len(line) < 3000
        assert {"x", "y", "ids"}.isdisjoint(json.loads(line))


def test_the_original_never_sees_validation_rows_and_references_never_the_forgotten(tmp_path: Path) -> None:
    problem = forget.run(job(references=1), tmp_path).problem
    ids = {name: set(source.ids.tolist()) for name, source in problem.sources.items()}
    assert not ids["valid"] & (ids["forget"] | ids["retain"])
    assert not ids["test"] & (ids["forget"] | ids["retain"] | ids["valid"])
    assert len(ids["valid"]) == 120
    assert {int(y) for y in problem.source("forget").batch(torch.arange(len(ids["forget"])))["y"]} == {3}


def test_rows_by_id_that_are_held_out_were_never_learned(tmp_path: Path) -> None:
    held = forget.run(job(), tmp_path / "a").problem.source("valid").ids.tolist()
    with pytest.raises(BadInput, match="never saw them"):
        forget.run(job(forget={"rows": {"ids": held[:3]}}), tmp_path / "b")
    kept = forget.run(job(), tmp_path / "c").problem.source("retain").ids.tolist()
    outcome = forget.run(job(forget={"rows": {"ids": [*held[:2], *kept[:4]]}}), tmp_path / "d")
    assert len(outcome.problem.source("forget")) == 4
    assert any("2 of the rows named are held out" in note for note in outcome.notes)


def test_test_rows_by_id_were_never_learned(tmp_path: Path) -> None:
    rows = "id,a,b,left\n" + "".join(f"u{i},{i % 7},{i % 5},{i % 2}\n" for i in range(60))
    (tmp_path / "rows.csv").write_text(rows)
    own = {
        "data": {"name": str(tmp_path / "rows.csv"), "roles": {"id": "id", "left": "target"}, "task": "binary"},
        "recipe": {"epochs": 1},
    }
    first = forget.run(job(**own, forget="random=0.1"), tmp_path / "a").problem
    test, kept = (first.source(name).ids.tolist() for name in ("test", "retain"))
    with pytest.raises(BadInput, match="all 2 rows to forget are test rows: the original never saw them"):
        forget.run(job(**own, forget={"rows": {"ids": test[:2]}}), tmp_path / "b")
    outcome = forget.run(job(**own, forget={"rows": {"ids": [*test[:2], *kept[:4]]}}), tmp_path / "c")
    assert sorted(outcome.problem.source("forget").ids.tolist()) == sorted(kept[:4])
    assert "2 of the rows named are test rows: the original never saw them" in outcome.notes
    with pytest.raises(BadInput, match='1 of 2 ids belong to no row: "nobody"'):
        forget.run(job(**own, forget={"rows": {"ids": [*kept[:1], "nobody"]}}), tmp_path / "d")


# --- killed and resumed


class Killed(BaseException):
    pass


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints at every step, and no waiting for the disk: a kill of the process loses no write."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    clock = itertools.count(0, 31)
    monkeypatch.setattr("oblivio.core.run.time", SimpleNamespace(monotonic=lambda: float(next(clock))))


def killing(operation: Callable[..., Any], at: int, after: bool) -> Callable[..., Any]:
    """``operation``, which dies at its ``at``-th call, before or after having done its work."""
    count = itertools.count(1)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        number = next(count)
        if number == at and not after:
            raise Killed
        done = operation(*args, **kwargs)
        if number == at:
            raise Killed
        return done

    return deadly


SMALL = {
    "data": "breast_cancer", "model": {"name": "mlp", "options": {"hidden": [4]}}, "recipe": {"epochs": 0.5},
    "forget": "random=0.1", "method": {"name": "finetune", "settings": {"epochs": 0.5}}, "references": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    forget.run(Job.of(**SMALL), folder)
    return folder


@pytest.mark.parametrize("operation", ["fsync", "replace"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 4, 9, 20, 33, 47])
def test_a_job_killed_at_a_file_operation_resumes_to_the_same_bits(
    operation: str, after: bool, at: int, often: None, own_cache: Path, tmp_path: Path, undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out, asked = tmp_path / "out", Job.of(**SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(os, operation, killing(getattr(os, operation), at, after))
        with pytest.raises(Killed):
            forget.run(asked, out)
    for half in [*tmp_path.rglob(artefact.META)]:
        artefact.read(half.parent)  # what looks like a model is one
    if not (out / "report.json").exists():
        forget.run(asked, out, resume=(out / "job.yaml").exists())
    assert bits(out) == bits(undisturbed)
    assert values(out) == values(undisturbed)


@pytest.mark.parametrize("at", [1, 4, 6, 9])
def test_a_job_killed_at_a_step_resumes_to_the_same_bits(
    at: int, often: None, own_cache: Path, tmp_path: Path, undisturbed: Path
) -> None:
    steps = itertools.count(1)

    def kill(*_: Any) -> None:
        if next(steps) == at:
            raise Killed

    with pytest.raises(Killed):
        forget.run(Job.of(**SMALL), tmp_path / "out", watch=[kill])
    forget.run(Job.of(**SMALL), tmp_path / "out", resume=True)
    assert bits(tmp_path / "out") == bits(undisturbed)


def test_a_job_of_defaults_is_the_same_when_it_is_resumed(tmp_path: Path) -> None:
    def kill(run: Any, *_: Any) -> None:
        raise Killed

    asked = Job.of(data="breast_cancer", model="mlp", forget="random=0.1", method="finetune", recipe={"epochs": 0.1})
    with pytest.raises(Killed):
        forget.run(asked, tmp_path, watch=[kill])
    again = Job.load(tmp_path / "job.yaml")
    assert again.model.options == {"hidden": [400, 400]}
    forget.run(again, tmp_path, resume=True)
    assert (tmp_path / "report.json").exists()


def test_a_finished_run_and_another_job_are_not_resumed(tmp_path: Path) -> None:
    forget.run(job(), tmp_path / "out")
    with pytest.raises(BadInput, match="finished run"):
        forget.run(job(), tmp_path / "out", resume=True)
    (tmp_path / "out" / "report.json").unlink()
    with pytest.raises(BadInput, match="another job: seed differ"):
        forget.run(job(seed=1), tmp_path / "out", resume=True)
    with pytest.raises(BadInput, match="holds no run"):
        forget.run(job(), tmp_path / "nothing", resume=True)


# --- guards


@pytest.mark.parametrize(
    ("guards", "message"),
    [
        ({"retain_floor": 1.0}, "retain_floor = 1"),
        ({"seconds": 1e-6}, "guards.seconds"),
        ({"passes": 0.2}, "guards.passes"),
    ],
)
def test_a_guard_stops_the_method(guards: dict[str, float], message: str, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=message):
        forget.run(job(guards=guards), tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()
    assert '"event": "stopped"' in (tmp_path / "out" / "log.jsonl").read_text()


def test_a_job_within_its_guards_is_not_changed_by_them(tmp_path: Path) -> None:
    forget.run(job(), tmp_path / "free")
    forget.run(job(guards={"retain_floor": 0.01, "seconds": 1000, "passes": 50}), tmp_path / "guarded")
    assert bits(tmp_path / "free") == bits(tmp_path / "guarded")


# --- models and references of the user's


def test_weights_and_references_may_be_given(tmp_path: Path) -> None:
    first = forget.run(job(references=1), tmp_path / "first")
    write_tensors(tmp_path / "w.safetensors", first.original.model.state_dict())
    ob.save(first.references[0].module, tmp_path / "plain", task="classification")
    write_tensors(tmp_path / "r.safetensors", first.references[0].module.state_dict())
    gone = first.problem.source("forget").ids.tolist()
    given = {"model": str(tmp_path / "r.safetensors"), "without": [*gone, "extra"]}
    # nothing is held out where weights are given, so the request is by ids to have the same rows
    asked = job(model={"name": "mlp", "options": {"hidden": [8]}, "weights": str(tmp_path / "w.safetensors")},
                forget={"rows": {"ids": gone}}, references=[given])  # fmt: skip
    outcome = forget.run(asked, tmp_path / "second")
    assert "valid" not in outcome.problem.sources
    assert named(outcome.report, "reference") == ["retrained 1"]
    assert any("1 rows that are not forgotten here" in note for note in outcome.notes)
    seen = {**given, "without": gone[1:]}
    asked = job(forget={"rows": {"ids": gone}}, data={"name": "digits", "valid": 0}, references=[seen])
    with pytest.raises(BadInput, match="reference .* was trained with 1 of the"):
        forget.run(asked, tmp_path / "third")


def test_a_run_goes_on_from_the_folder_of_another(tmp_path: Path) -> None:
    forget.run(job(), tmp_path / "one")
    outcome = forget.run(job(model={"weights": str(tmp_path / "one")}, forget="class=4"), tmp_path / "two")
    assert named(outcome.report, "outcome") == ["finetune"]
    with pytest.raises(BadInput, match="say with recipe how"):
        forget.run(
            Job.of(data="digits", model={"weights": str(tmp_path / "one")}, forget="class=4", method="finetune",
                   references=1), tmp_path / "three")  # fmt: skip


OWN = """
import torch
from torch import nn
from oblivio.core.problem import Problem
from oblivio.verbs import learn

def factory(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

def train(source, seed, folder):
    torch.manual_seed(seed % 2**31)
    return learn(factory(), source, {"epochs": 1}, seed=seed, folder=folder)

def other(source, seed, folder):
    return nn.Linear(2, 2)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "owncode.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "owncode"


def test_a_users_own_network_and_recipe(own: str, own_cache: Path, tmp_path: Path) -> None:
    asked = job(model=f"{own}:factory", recipe=f"{own}:train", references=1)
    outcome = forget.run(asked, tmp_path / "out")
    assert isinstance(ob.load(tmp_path / "out", factory=f"{own}:factory"), nn.Sequential)
    assert len(cache.entries()) == 2
    forget.run(Job.load(tmp_path / "out" / "job.yaml"), tmp_path / "again")
    assert bits(tmp_path / "out") == bits(tmp_path / "again")
    assert outcome.cost["of_retraining"].keys() == {"seconds"}
    with pytest.raises(BadInput, match="another network than owncode:factory"):
        forget.run(job(model=f"{own}:factory", recipe=f"{own}:other"), tmp_path / "other")


# --- kinds of data


@pytest.mark.parametrize("data", ["breast_cancer", "diabetes"])
def test_binary_and_regression(data: str, tmp_path: Path) -> None:
    asked = job(data=data, forget="random=0.1", references=1)
    outcome = forget.run(asked, tmp_path)
    assert {figure(outcome.report, name)[0] for name in ("forget", "retain", "test", "kept")} == {"figure"}
    assert outcome.report["request"]["higher"] is (data == "breast_cancer")
    x = outcome.problem.source("test").batch(torch.arange(4))["x"]
    assert torch.equal(ob.load(tmp_path)(x), outcome.model(x))


def test_a_table_with_gaps_and_categories(tmp_path: Path) -> None:
    rows = [f"{i},{i % 7 if i % 5 else ''},{'ab'[i % 2]},{'yes' if i % 3 else 'no'}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["key,number,letter,bought", *rows]))
    data = {"name": str(tmp_path / "t.csv"), "roles": {"key": "id", "bought": "target"}, "task": "classification"}
    asked = job(data=data, forget={"rows": {"where": "letter == 'a' and number > 4"}}, references=1)
    outcome = forget.run(asked, tmp_path / "out")
    assert named(outcome.report, "reference") == ["retrained 1"]
    assert ob.load(tmp_path / "out") is not None


def test_augmentation_repeats_itself_and_leaves_the_figures_alone(own_cache: Path, tmp_path: Path) -> None:
    asked = job(recipe={"epochs": 1, "augmentation": "crop_flip"})
    first = forget.run(asked, tmp_path / "one")
    cache.clear()
    forget.run(asked, tmp_path / "two")
    assert bits(tmp_path / "one") == bits(tmp_path / "two")
    plain = forget.run(job(recipe={"epochs": 1}), tmp_path / "plain")
    assert not torch.equal(first.original.model.net.head.weight, plain.original.model.net.head.weight)


def test_copies_are_counted_or_forgotten_too(tmp_path: Path) -> None:
    rows = [f"{i},{i // 2},{i % 2}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["key,number,label", *rows]))
    data = {"name": str(tmp_path / "t.csv"), "roles": {"key": "id", "label": "target"}, "task": "classification",
            "valid": 0, "test": 0.1}  # fmt: skip
    kept = forget.run(job(data=data, forget={"rows": {"where": "key < 10 and label == 0"}}), tmp_path / "one")
    number = len(kept.problem.source("forget"))
    moved = forget.run(
        job(data=data, forget={"rows": {"where": "key < 10 and label == 0"}, "with_duplicates": True}), tmp_path / "two"
    )
    assert len(moved.problem.source("forget")) > number
    assert any("same content" in note for note in kept.notes)
    assert any("are forgotten too" in note for note in moved.notes)
