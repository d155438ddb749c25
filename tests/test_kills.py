"""A sample of the kills of ``make kills``, and proof that these would find a fault; see the package ``kills``."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills.__main__ import kills
from kills.operations import AUDITED
from kills.scenarios import LINEAR, linear
from kills.server import Server
from kills.trials import FINISHED, KILLED, STAGES, Job, Kill, digest, said

from oblivio import artefact
from oblivio.claims.records import commit
from oblivio.core.errors import BadInput
from oblivio.core.files import read_json

RECORD = Path(__file__).parent.parent / "results" / "kills.json"
AT_ALL = ["preparation", *dict.fromkeys(STAGES.values())]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as process:
        yield process


@pytest.fixture(scope="module")
def job(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(server, tmp_path_factory.mktemp("trained"))


def drawn(found: list[Kill], number: int) -> list[Kill]:
    """Others for another commit."""
    return random.Random(commit()).sample(found, number)


@pytest.mark.parametrize("stage", AT_ALL)
def test_a_job_killed_in_any_stage_goes_on_to_the_same_bits(stage: str, job: Job) -> None:
    inside = [kill for kill in kills(job) if job.operations[kill.at or 0].stage == stage]
    for kill in drawn(inside, 2):
        assert job.killed(kill) != [None]
    lines = job.stages.index(stage)
    job.killed(Kill(lines=lines, seconds=job.pauses[lines] / 2))


def test_a_job_is_killed_again_and_again(job: Job) -> None:
    assert job.killed(Kill(80, "before"), Kill(40, "half"), Kill(30, "after")).count(None) == 0


def test_weights_that_are_given_stay_as_they_are(job: Job, server: Server, tmp_path: Path) -> None:
    original = tmp_path / "original.safetensors"
    shutil.copy(next((job.folder / "1" / "cache").rglob("model.safetensors")), original)
    given = Job(server, tmp_path, method="npo", original=original, steps=6)
    assert {operation.stage for operation in given.operations} == set(AT_ALL) - {"original"}
    for kill in drawn([kill for kill in kills(given) if given.operations[kill.at or 0].stage == "method"], 2):
        assert given.killed(kill) == ["method"]


@pytest.mark.parametrize(("how", "words"), [("full", "No space left on device"), ("denied", "ermi[ts]+")])
def test_a_full_disk_and_denied_writes_are_told_in_one_line(how: str, words: str, job: Job) -> None:
    for stage in ("method", "audit"):
        writes = [at for at, o in enumerate(job.operations) if o.stage == stage and o.kind in ("write", "rename")]
        said = job.fails(random.Random(commit()).choice(writes[:-2]), how)
        assert ": '" in said, said


def test_a_killed_clearing_of_the_cache_is_in_nobodys_way(job: Job) -> None:
    assert job.cleared((3, "before")) == KILLED


def test_no_operation_is_overlooked(job: Job) -> None:
    """The interpreter itself reports the same ones; writes and fsyncs it does not report."""
    counted = Counter(operation.kind for operation in job.operations if operation.kind in {*AUDITED.values(), "open"})
    assert counted == Counter(job.audited)


@pytest.mark.parametrize(
    ("plant", "kind", "name", "later", "moment"),
    [
        ("in place", "write", "model.json", 0, "half"),
        ("unsynced", "rename", "model.json", 1, "power"),
        ("forgetful", "rename", "checkpoint.json", 1, "before"),
    ],
)
def test_a_planted_fault_is_found(
    plant: str, kind: str, name: str, later: int, moment: str, server: Server, tmp_path: Path
) -> None:
    job = Job(server, tmp_path, plant=plant)
    at = next(at for at, o in enumerate(job.operations) if (o.kind, o.name) == (kind, name))
    with pytest.raises((AssertionError, ValueError)):
        job.killed(Kill(at + later, moment))


def test_a_save_killed_anywhere_leaves_a_model_or_none(server: Server, tmp_path: Path) -> None:
    whole = digest(linear().eval())
    assert server.run("save", tmp_path) == FINISHED, said(tmp_path)
    operations = read_json(tmp_path / "operations.json")["seen"]
    assert Counter(kind for kind, *_ in operations) == {
        "mkdir": 1, "open": 2, "write": 2, "flush": 2, "fsync": 4, "rename": 2,
    }  # fmt: skip
    for at, (kind, *_) in enumerate(operations):
        for moment in ("before", "half", "after") if kind == "write" else ("before", "after"):
            folder = tmp_path / f"{at} {moment}"
            folder.mkdir()
            assert server.run("save", folder, fault=(at, moment)) == KILLED
            if not (folder / "model" / artefact.META).exists():
                with pytest.raises(BadInput, match="does not exist|no model"):
                    artefact.read(folder / "model")
                artefact.save(folder / "model", linear(), task="classification", architecture=LINEAR)
            assert digest(artefact.read(folder / "model").module) == whole


def test_all_kills_are_recorded() -> None:
    record = read_json(RECORD)
    assert record["kills"] >= 200
    renamed = {"figures": "audit"}  # what the last stage was called when the record was made; it judged nothing yet
    assert {renamed.get(stage, stage) for stage in record["kills by stage"]} == set(AT_ALL)
    for stage, moments in record["kills by stage and moment"].items():
        assert moments["time"] > 0, stage
        assert sum(moments.values()) - moments["time"] >= 10, stage
    assert record["kills by operation"]["time"] >= 10 * len(AT_ALL)
    wanted = [f"{moment} {kind}" for moment in ("before", "after") for kind in ("write", "fsync", "rename")]
    assert [kill for kill in wanted if record["kills by operation"][kill] < 10] == []
    assert all(record["failures"][how][kind] for how in ("full", "denied") for kind in ("write", "fsync", "rename"))
    assert record["not as it must be"] == []
