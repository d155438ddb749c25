"""The user's own rows in a job: ``package.module:function``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from oblivio import data
from oblivio.core.errors import BadInput
from oblivio.jobs import cache, forget
from oblivio.jobs.job import Job

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(40) % 4


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty module of the user's, which can be imported as ``mine``."""
    module = ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def returning(mine: ModuleType, made: Any) -> None:
    mine.rows = lambda: made  # type: ignore[attr-defined]


@pytest.mark.parametrize(("y", "task", "outputs"), [
    (CLASSES, "classification", 4), (CLASSES % 2, "binary", 1), (CLASSES.float(), "regression", 1),
    (torch.ones(40, 5).long(), "multilabel", 5), (torch.zeros(40, 2), "regression", 2),
])  # fmt: skip
def test_targets_tell_the_task(mine: ModuleType, y: torch.Tensor, task: str, outputs: int) -> None:
    for made in (((X, y), {"x": X[:5], "y": y[:5]}), (TensorDataset(X, y), [X, y])):
        returning(mine, made)
        found = data.load("mine:rows")
        assert (found.name, found.task, found.inputs, found.outputs) == ("mine:rows", task, (3,), outputs)
        assert found.preprocess is None
        assert "as mine:rows returned them" in found.notes[0]


def test_the_user_knows_better(mine: ModuleType) -> None:
    returning(mine, ((X, CLASSES % 2), (X, CLASSES % 2)))
    found = data.load("mine:rows", task="classification")
    assert (found.task, found.outputs) == ("classification", 2)


def test_a_dataset_is_taken_as_it_is(mine: ModuleType) -> None:
    made = data.load("digits")
    returning(mine, made)
    assert data.load("mine:rows") is made
    with pytest.raises(BadInput, match="returned a Dataset for classification, and data.task is 'regression'"):
        data.load("mine:rows", task="regression")


def test_options_are_the_functions(mine: ModuleType) -> None:
    mine.rows = lambda test=5: ((X, CLASSES), (X[:test], CLASSES[:test]))  # type: ignore[attr-defined]
    assert len(data.load("mine:rows", test=7).test) == 7
    with pytest.raises(BadInput, match="mine:rows has no option 'tst'; did you mean 'test'"):
        data.load("mine:rows", tst=7)


@pytest.mark.parametrize(("made", "words"), [
    (3, "mine:rows returned a int; give an oblivio.data.Dataset, or"), ((X,), "mine:rows returned a tuple"),
    (((X,), (X,)), "train of mine:rows: a row is to have x and y as numbers; its columns are x"),
    (((X, CLASSES), (X[:0], CLASSES[:0])), "test of mine:rows: no rows"), ((3, 4), "a part of mine:rows is a int"),
])  # fmt: skip
def test_what_is_no_data_set_is_refused(mine: ModuleType, made: Any, words: str) -> None:
    returning(mine, made)
    with pytest.raises(BadInput, match=words):
        data.load("mine:rows")


def test_a_function_that_is_not_there_is_refused(mine: ModuleType) -> None:
    returning(mine, 3)
    with pytest.raises(BadInput, match="mine has no function or class 'row'; did you mean 'rows'"):
        data.load("mine:row")
    with pytest.raises(BadInput, match="nowhere:rows: nowhere cannot be imported"):
        data.load("nowhere:rows")


def test_a_job_on_own_rows_follows_their_content(
    mine: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()  # a folder of the module's name is no place of data
    monkeypatch.setenv("OBLIVIO_CACHE", str(tmp_path / "cache"))

    def rows(scale: float) -> tuple[Any, Any]:
        return Subset(TensorDataset(scale * X, CLASSES), range(30)), (scale * X[30:], CLASSES[30:])

    mine.rows = rows  # type: ignore[attr-defined]
    job = Job.of(
        data={"name": "mine:rows", "options": {"scale": 1}, "valid": 0},
        model={"name": "mlp", "options": {"hidden": [4]}},
        recipe={"epochs": 1}, forget={"rows": {"ids": [3, 29]}}, method={"name": "finetune", "settings": {"epochs": 1}},
    )  # fmt: skip
    outcome = forget.run(job, Path("one"))
    assert outcome.problem.source("forget").ids.tolist() == [3, 29]
    assert Job.load("one/job.yaml").data == job.data
    forget.run(job, Path("two"))
    assert len(cache.entries()) == 1
    forget.run(job.but(data=job.data.but(options={"scale": 2})), Path("three"))
    assert len(cache.entries()) == 2
    with pytest.raises(BadInput, match="1 of 1 ids belong to no row"):
        forget.run(job.but(forget=job.forget.but(rows={"ids": [30]})), Path("four"))


def test_the_command_finds_a_module_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def rows():\n    return 3\n")
    words = ["forget", "--data", "mine:rows", "--model", "mlp", "--forget", "class=1", "--method", "finetune"]
    command = [str(Path(sys.executable).with_name("oblivio")), *words]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (said.returncode, "mine:rows returned a int" in said.stderr) == (2, True), said.stderr
    safe = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert "mine cannot be imported" in safe.stderr
