"""Job files: what they may hold, and how a fault in one is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oblivio.core.errors import BadInput
from oblivio.jobs import forget
from oblivio.jobs.job import Job
from oblivio.jobs.recipe import SHIPPED, Recipe, shipped
from oblivio.networks import names, takes

LEAST: dict[str, Any] = {"data": "digits", "model": "mlp", "forget": "class=3", "method": "salun"}


def test_the_example_is_valid_runs_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(Job.example())
    job = Job.load(tmp_path / "job.yaml")
    outcome = forget.run(job, tmp_path / "out")
    assert sum(subject["kind"] == "reference" for subject in outcome.report["subjects"]) == 3
    (tmp_path / "again.yaml").write_text(job.to_yaml())
    assert Job.load(tmp_path / "again.yaml") == job


def test_a_value_stands_for_a_section() -> None:
    job = Job.of(**LEAST, references=2, recipe="a.b:train")
    assert (job.data.name, job.model.name, job.forget.rows, job.method.name) == ("digits", "mlp", "class=3", "salun")
    assert (job.references.count, job.recipe.train) == (2, "a.b:train")
    listed = Job.of(**LEAST, references=[{"model": "m", "without": [1]}])
    assert listed.references.given[0].model == "m"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metod": "salun"}, "metod: there is no such field; did you mean 'method'?"),
        ({"method": {"name": "salun", "setings": {}}}, "method.setings: there is no such field; did you mean 'sett"),
        ({"method": {"name": "x", "pieces": [{"nam": "sam"}]}}, "method.pieces.0.name: this field is needed"),
        ({"forget": {"goal": "chance"}}, "forget.rows: this field is needed"),
        ({"forget": {"rows": "class=3", "goal": "gone"}},
         "forget.goal = 'gone': input should be 'retrained', 'clean' or 'chance'"),
        ({"data": {"name": "digits", "valid": 1.5}}, "data.valid = 1.5: input should be less than 1"),
        ({"data": {"name": "digits", "test": 2.0}}, "data.test = 2.0: input should be less than 1"),
        ({"seed": "many"}, "seed = 'many': input should be a valid integer, unable to parse string as an integer"),
        ({"recipe": {"lr": -1}}, "recipe.lr = -1: input should be greater than 0"),
        ({"recipe": {"train": "a:b", "lr": 1}}, "the function is the whole recipe; leave out lr"),
        ({"recipe": "a.b.train"}, "recipe.train = 'a.b.train': string should match pattern"),
        ({"references": [{"model": "m"}]}, "references.given.0.without: this field is needed"),
        ({"references": -1}, "references.count = -1: input should be greater than or equal to 0"),
        ({"guards": {"retain_flor": 1}}, "guards.retain_flor: there is no such field; did you mean 'retain_floor'?"),
        ({"model": {}}, "give name (a network), or weights"),
    ],
)  # fmt: skip
def test_a_fault_names_the_field_what_was_given_and_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as fault:
        Job.of(**{**LEAST, **changes})
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("data: [", "is not YAML"), ("- 1", "holds no job"), ("", "holds no job"), ("data: digits", "model: this field"),
     ("a: !!python/object:os.system {}", "is not YAML")],
)  # fmt: skip
def test_a_file_that_is_no_job(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(BadInput, match=message) as fault:
        Job.load(tmp_path / "job.yaml")
    assert "job.yaml" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        Job.load(tmp_path / "none.yaml")


def test_reading_a_job_imports_no_torch() -> None:
    code = "import sys; from oblivio.jobs.job import Job; Job.example(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- recipes


def test_every_network_has_a_recipe() -> None:
    assert sorted(SHIPPED) == [name for name in names() if takes(name) == "rows"]


def test_what_a_recipe_leaves_out_is_as_shipped() -> None:
    given = Recipe(epochs=3).over(shipped("vit-tiny"))
    assert given == SHIPPED["vit-tiny"].but(epochs=3)
    assert Recipe(train="a:b").over(shipped("mlp")) == Recipe(train="a:b")
    assert shipped("a:own") == Recipe()
