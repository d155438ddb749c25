"""``oblivio audit``, ``compare``, ``purge`` and ``cite``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from oblivio.audits.report import Report
from oblivio.cli import main
from oblivio.cli.codes import FAILED, FINISHED, INCONCLUSIVE

SMALL = """\
data: {name: breast_cancer, valid: 0}
model: {name: mlp, options: {hidden: [4]}}
recipe: {epochs: 1}
forget: random=0.1
method: {name: finetune, settings: {epochs: 1}}
audit: {leave_out: [mia_confidence]}
"""

Cli = Callable[..., SimpleNamespace]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_cache: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(SMALL)

    def run(*words: str) -> SimpleNamespace:
        capsys.readouterr()
        code = main(words)
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_finished_run_is_audited_again_and_stays_as_it_was(cli: Cli) -> None:
    assert cli("forget", "job.yaml", "--out", "one").code == INCONCLUSIVE
    before = contents(Path("one"))
    said = cli("audit", "one", "--references", "1", "--no-rows", "--out", "two")
    assert said.code == INCONCLUSIVE
    assert contents(Path("one")) == before
    assert sorted(path.name for path in Path("two").iterdir()) == [
        "job.yaml",
        "log.jsonl",
        "report.html",
        "report.json",
    ]
    one, two = Report.load("one"), Report.load("two")
    assert one.value("forget") == two.value("forget")
    assert [s["name"] for s in two["subjects"]] == ["finetune", "original", "retrained 1", "weight noise"]


def test_a_model_is_named_beside_a_job(cli: Cli) -> None:
    cli("forget", "job.yaml", "--out", "one")
    said = cli("audit", "job.yaml", "--outcome", "one/model", "--out", "two")
    assert said.code == INCONCLUSIVE
    assert Report.load("one").value("retain") == Report.load("two").value("retain")
    said = cli("audit", "job.yaml")
    assert said.code == 2
    assert "--outcome" in said.err
    Path("changed.yaml").write_text(SMALL.replace("audit: {", "audit: {outcome: one/model, "))
    said = cli("forget", "changed.yaml", "--out", "three")
    assert (said.code, "oblivio audit" in said.err, Path("three").exists()) == (2, True, False)
    said = cli("audit", "job.yaml", "--outcome", "nowhere.safetensors", "--out", "three")
    assert (said.code, Path("three").exists()) == (2, False)


def test_outcomes_are_compared_on_one_page(cli: Cli) -> None:
    cli("forget", "job.yaml", "--out", "one")
    cli("forget", "job.yaml", "--epochs", "2", "--out", "two")
    said = cli("compare", "one", "two/report.json", "--out", "both.html")
    assert said.code == FINISHED
    assert "one" in said.out
    assert "two" in said.out
    assert Path("both.html").read_text().lstrip().lower().startswith("<!doctype html>")
    cli("forget", "job.yaml", "--forget", "random=0.2", "--out", "three")
    said = cli("compare", "one", "three", "--out", "none.html")
    assert said.code == 2
    assert not Path("none.html").exists()


def test_a_purge_asks_first(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("forget", "job.yaml", "--out", "one")
    before = contents(Path())
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    said = cli("purge", "one")
    assert (said.code, contents(Path())) == (FINISHED, before)
    assert "rows.parquet: ids and figures of every row" in said.out
    assert "nothing was removed" in said.out
    said = cli("purge", "one", "--yes")
    assert said.code == FINISHED
    assert "2 removed, 0 left. There is no roll-back." in said.out
    assert "nothing that the run knows of" in cli("purge", "one", "--yes").out


def test_what_cannot_be_purged_is_said(cli: Cli) -> None:
    cli("forget", "job.yaml", "--out", "one")
    Path("one/rows.parquet").write_bytes(b"new")
    said = cli("purge", "one", "--yes")
    assert said.code == FAILED
    assert "rows.parquet stays: its content is no longer what the run saw" in said.err


def test_cite(cli: Cli) -> None:
    said = cli("cite", "salun")
    assert "title = {SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency}" in said.out
    assert "@software{oblivio" in said.out
    assert cli("cite", "finetune").out.startswith("% finetune: no paper")
    assert cli("cite", "salum").code == 2
