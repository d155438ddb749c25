"""A run folder of every release: this one loads it and gives the outputs that were recorded then.

A release adds its own with ``python tests/releases/add.py``, and none is ever changed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from releases.add import HERE, rows

import oblivio as ob
from oblivio import artefact
from oblivio.core.errors import BadInput
from oblivio.core.files import read_json
from oblivio.jobs.job import Job

FOLDERS = sorted(path.parent for path in HERE.glob("*/figures.json"))
SMALL = 64_000  # bytes


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_run_of_an_earlier_release_is_read(folder: Path) -> None:
    outputs = ob.load(folder)(rows())
    torch.testing.assert_close(outputs, torch.tensor(read_json(folder / "outputs.json")), atol=1e-4, rtol=1e-4)
    facts = read_json(folder / "figures.json")
    assert facts["figures"]["references"]["number"] == 1
    assert Job.load(folder / "job.yaml").method.name == facts["method"]
    assert all(json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines())
    assert read_json(folder / "model" / artefact.META)["provenance"]["release"] == folder.name
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < SMALL


def test_this_release_has_a_folder() -> None:
    assert ob.__version__ in [folder.name for folder in FOLDERS]


def test_a_folder_of_a_later_schema_says_which_release_reads_it(tmp_path: Path) -> None:
    run = shutil.copytree(FOLDERS[-1], tmp_path / "run")
    meta = read_json(run / "model" / artefact.META)
    meta |= {"schema": artefact.SCHEMA + 1, "provenance": {"release": "9.1.0"}}
    (run / "model" / artefact.META).write_text(json.dumps(meta))
    later = f"has schema {artefact.SCHEMA + 1}, written by a newer release; this one reads schema {artefact.SCHEMA}"
    with pytest.raises(BadInput, match=f"{later}; oblivio 9.1.0 or later reads it$"):
        ob.load(run)
