"""Requests one after the other: what a later one starts from, what stays open, what is judged again, and kills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from oblivio.artefact import read
from oblivio.core.errors import BadInput
from oblivio.core.files import read_json
from oblivio.jobs import forget, sequence
from oblivio.jobs.job import Job
from oblivio.jobs.sequence import Requests, run
from oblivio.jobs.turns import RECORD

FIELDS: dict[str, Any] = {
    "data": {"name": "digits", "valid": 0.1}, "model": {"name": "mlp", "options": {"hidden": [16]}},
    "recipe": {"epochs": 2}, "references": 3, "method": {"name": "finetune", "settings": {"epochs": 1}},
    "audit": {"leave_out": ["relearning"]}, "take": "all",
}  # fmt: skip
REQUESTS = ["class=3", "random=0.05", "class=7"]


def job(**fields: Any) -> Requests:
    return Requests.of(**{**FIELDS, "requests": REQUESTS, **fields})


def ids(folder: Path, number: int) -> set[Any]:
    rows = Job.load(folder / f"request-{number:02d}" / "job.yaml").forget.rows
    assert isinstance(rows, dict)
    return set(rows["ids"])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[sequence.Served]]:
    out = tmp_path_factory.mktemp("sequence") / "out"
    return out, run(job(), out)


def test_each_request_starts_from_the_model_before_without_the_rows_that_went(
    done: tuple[Path, list[sequence.Served]],
) -> None:
    out, served = done
    third = Job.load(out / "request-03" / "job.yaml")
    assert Path(third.model.weights or "").parts[-2:] == ("request-02", "model")
    assert set(third.data.without) == ids(out, 1) | ids(out, 2)
    assert not ids(out, 3) & set(third.data.without)
    assert [each.rows for each in served] == [len(ids(out, n)) for n in (1, 2, 3)]


def test_earlier_requests_are_judged_again_after_each_later_one(done: tuple[Path, list[sequence.Served]]) -> None:
    out, served = done
    assert [[again.request for again in each.again] for each in served] == [[], [1], [1, 2]]
    assert served[2].again[0].references < 0.05  # a class that references never saw
    assert read_json(out / RECORD)["requests"][2]["again"][1]["word"] == served[2].again[1].word


def test_what_is_not_accepted_stays_open_and_goes_with_the_next(tmp_path: Path) -> None:
    served = run(job(take="accepted", requests=REQUESTS[:2]), tmp_path / "out")
    assert [each.taken for each in served] == [False, False]
    assert ids(tmp_path / "out", 1) < ids(tmp_path / "out", 2)
    second = Job.load(tmp_path / "out" / "request-02" / "job.yaml")
    assert second.model.weights is None
    assert second.data.without == []
    assert read_json(tmp_path / "out" / RECORD)["model"] is None


def test_a_killed_sequence_goes_on_to_the_same_bits(done: tuple[Path, list[sequence.Served]], tmp_path: Path) -> None:
    def kill(run: Any, stage: Any, step: Any) -> None:
        if len(run.problem.sources.get("forget", ())) == len(ids(done[0], 2)) and run.steps == 3:
            run.checkpoint()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job(), tmp_path / "out", watch=[kill])
    again = run(job(), tmp_path / "out")
    assert again == done[1]
    mine, whole = (read(folder / "request-03" / "model").module.state_dict() for folder in (tmp_path / "out", done[0]))
    assert all(torch.equal(mine[name], whole[name]) for name in whole)


def test_what_cannot_be_served_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for fields, words in (
        ({"requests": ["class=3"]}, "at least 2"),
        ({"references": 0}, "give references: 3"),
        ({"take": "some"}, "'accepted' or 'all'"),
    ):
        with pytest.raises(BadInput, match=words):
            run(job(**fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_sequence_is_refused(done: tuple[Path, list[sequence.Served]]) -> None:
    with pytest.raises(BadInput, match="another sequence"):
        run(job(requests=REQUESTS[::-1]), done[0])


def test_rows_that_are_no_training_rows_cannot_have_been_forgotten(tmp_path: Path) -> None:
    fields = {name: value for name, value in FIELDS.items() if name != "take"}
    one = Job.of(**{**fields, "data": {"name": "digits", "without": [10**6]}, "forget": "class=3"})
    with pytest.raises(BadInput, match="ids .1000000. are of no training row"):
        forget.run(one, tmp_path / "out")
