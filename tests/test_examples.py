"""The examples run as they are, and print what they promise."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import oblivio as ob
from oblivio.cli.codes import FINISHED, INCONCLUSIVE, REJECTED

EXAMPLES = Path(__file__).parent.parent / "examples"
OWN = EXAMPLES / "own_model"


def run(name, monkeypatch):
    """``main()`` of an example, imported from its file."""
    path = EXAMPLES / name
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("OBLIVIO_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_forget_a_class(monkeypatch, capsys):
    problem = run("forget_a_class.py", monkeypatch)
    assert problem.score("forget") > 0.9  # the original still knows the class
    printed = capsys.readouterr().out
    assert "accuracy in %" in printed
    assert "3 retrained" in printed
    assert all(name in printed for name in ("output masked", "weight noise", "salun", "ssd"))


def test_regression(monkeypatch, capsys):
    problem = run("regression.py", monkeypatch)
    assert problem.task.name == "regression"
    printed = capsys.readouterr().out
    assert "squared error" in printed
    assert "3 retrained" in printed
    assert "inf" not in printed


def test_compose_a_method(monkeypatch, capsys):
    plans = run("compose_a_method.py", monkeypatch)
    printed = capsys.readouterr().out
    assert all(f"{words}: {plan!r}" in printed for words, plan in plans.items())
    assert " >> " in printed
    assert len(set(map(repr, plans.values()))) == len(plans)


def test_learn_and_forget(monkeypatch, capsys):
    report = run("learn_and_forget.py", monkeypatch)
    printed = capsys.readouterr().out
    assert "Buffer replay: " in printed
    assert "changed by npo" in printed
    assert "3 retrained" in printed
    assert report.value("forget") < 0.2  # as its docstring says, and that the audit finds the user all the same
    assert report.verdict.word == "REJECTED"


def test_own_model_in_python(monkeypatch, capsys):
    problem = run("own_model/run.py", monkeypatch)
    assert problem.task.name == "binary"
    assert "3 retrained" in capsys.readouterr().out


def test_own_model_as_a_job(tmp_path):
    out = tmp_path / "run"
    command = [str(Path(sys.executable).with_name("oblivio")), "forget", "job.yaml", "--out", str(out)]
    done = subprocess.run(
        command,
        cwd=OWN,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (FINISHED, REJECTED, INCONCLUSIVE), done.stderr
    assert "3 retrained" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        "model", "job.yaml", "log.jsonl", "report.html", "report.json", "rows.parquet",
    }  # fmt: skip


def test_own_model_forgets_only_customers_it_has(monkeypatch):
    monkeypatch.syspath_prepend(str(OWN))
    asked = (OWN / "gone.txt").read_text().split()
    rows = ob.data.load("shop:customers")
    assert set(asked) <= set(rows.train.ids.tolist())
    assert (rows.task, rows.inputs, rows.outputs, len(rows.test)) == ("binary", (4,), 1, 180)
