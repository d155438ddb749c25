"""What derives from forgotten rows is listed and removed, and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import oblivio as ob
from oblivio.audits.report import Report
from oblivio.core.errors import BadInput
from oblivio.jobs import cache, derived, forget
from oblivio.jobs.job import Job

SMALL: dict[str, Any] = {
    "data": "breast_cancer", "model": {"name": "mlp", "options": {"hidden": [4]}}, "recipe": {"epochs": 0.5},
    "forget": "random=0.1", "method": {"name": "finetune", "settings": {"epochs": 0.5}}, "references": 1,
    "audit": {"leave_out": ["mia_confidence"]},
}  # fmt: skip


@pytest.fixture
def run(own_cache: Path, tmp_path: Path) -> Path:
    forget.run(Job.of(**SMALL), tmp_path / "out")
    return tmp_path / "out"


def test_a_run_lists_the_kept_original_and_its_rows_but_no_reference(run: Path) -> None:
    found = {each.what: Path(each.path) for each in derived.listed(run)}
    assert set(found) == {"the original model, kept to be used again", "ids and figures of every row"}
    assert found["ids and figures of every row"] == run / "rows.parquet"
    assert all(path.exists() for path in found.values())
    assert len(cache.entries()) == 2


def test_a_purge_removes_these_and_the_run_goes_on_serving(run: Path) -> None:
    before = derived.listed(run)
    done = derived.purge(run)
    assert (sorted(done.gone), done.left) == (sorted(each.path for each in before), [])
    assert not any(Path(each.path).exists() for each in before)
    assert len(cache.entries()) == 1
    assert ob.load(run) is not None
    report = Report.load(run)
    assert report["derived"] == []
    assert sum("there is no roll-back" in note for note in report["notes"]) == 1
    assert "there is no roll-back" in (run / "report.html").read_text()
    assert '"event": "purge"' in (run / "log.jsonl").read_text()


def test_what_changed_since_stays_and_is_listed_on(run: Path) -> None:
    (run / "rows.parquet").write_bytes(b"another file")
    done = derived.purge(run)
    assert done.left == [(str(run / "rows.parquet"), "its content is no longer what the run saw")]
    assert (run / "rows.parquet").read_bytes() == b"another file"
    assert [each.path for each in derived.listed(run)] == [str(run / "rows.parquet")]


def test_given_weights_and_the_control_are_listed(own_cache: Path, tmp_path: Path) -> None:
    first = forget.run(Job.of(**SMALL), tmp_path / "first")
    ob.save(first.original.model, tmp_path / "original", task="binary")
    shutil.copy(tmp_path / "original" / "model.safetensors", tmp_path / "w.safetensors")
    model = {**SMALL["model"], "weights": str(tmp_path / "w.safetensors")}
    forget.run(Job.of(**{**SMALL, "model": model, "references": 2}), tmp_path / "second")
    found = {each.what: each.path for each in derived.listed(tmp_path / "second")}
    assert found["the original model"] == str(tmp_path / "w.safetensors")
    assert "a control trained on all rows" in found
    report = Report.load(tmp_path / "second")
    assert set(report["reproduced"]) == {"same", "why", "divergence", "figure"}
    derived.purge(tmp_path / "second")
    assert not (tmp_path / "w.safetensors").exists()


def test_a_recipe_that_is_not_the_originals_is_found_out(own_cache: Path, tmp_path: Path) -> None:
    first = forget.run(Job.of(**{**SMALL, "recipe": {"epochs": 20}, "references": 0}), tmp_path / "first")
    ob.save(first.original.model, tmp_path / "original", task="binary")
    model = {**SMALL["model"], "weights": str(tmp_path / "original" / "model.safetensors")}
    poor = {**SMALL, "model": model, "recipe": {"epochs": 0.2}, "references": 3}
    verdict = forget.run(Job.of(**poor), tmp_path / "poor").report.verdict
    assert verdict.word == "INCONCLUSIVE"
    assert "the recipe does not reproduce the original" in verdict.reasons[0]
    same = forget.run(Job.of(**{**poor, "recipe": {"epochs": 20}}), tmp_path / "same").report
    assert same["reproduced"]["same"]


def test_an_interrupted_run_is_not_purged(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(Job.of(**SMALL).to_yaml())
    with pytest.raises(BadInput, match="interrupted run"):
        derived.purge(tmp_path)
    with pytest.raises(BadInput, match="is no report"):
        derived.listed(tmp_path / "nothing")


def test_rows_are_left_out_on_request(own_cache: Path, tmp_path: Path) -> None:
    forget.run(Job.of(**{**SMALL, "audit": {"rows": False, "leave_out": ["mia_confidence"]}}), tmp_path / "out")
    assert not (tmp_path / "out" / "rows.parquet").exists()


def test_rows_hold_ids_and_figures_and_no_content(run: Path) -> None:
    import pandas as pd

    rows = pd.read_parquet(run / "rows.parquet")
    assert set(rows["source"]) == {"forget", "retain", "test"}
    figures = {f"{name}: {what}" for name in ("finetune", "original", "retrained 1", "weight noise")
               for what in ("score", "margin", "quality")}  # fmt: skip
    assert set(rows.columns) == {"source", "id", *figures}
    report = Report.load(run)
    accuracy = rows.loc[rows["source"] == "forget", "finetune: quality"].mean()
    assert accuracy == pytest.approx(report.value("forget"), abs=1e-6)
