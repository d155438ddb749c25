"""Requests in turn at a language model: where each starts, what stays out, what is left of the earlier ones, kills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from oblivio.audits.language.memorisation import probability
from oblivio.audits.language.responses import respond
from oblivio.core.errors import BadInput
from oblivio.core.files import read_json
from oblivio.core.team import ALONE
from oblivio.data.language.loading import texts
from oblivio.jobs.language.job import LanguageJob
from oblivio.jobs.language.prepare import prepare
from oblivio.jobs.language.run import run as forget
from oblivio.jobs.language.sequence import Served, TextRequests, run
from oblivio.jobs.turns import RECORD
from oblivio.networks.language import open_model

OPTIONS = {"authors": 6, "forget": 3, "world": 2, "holdout": 2, "attributes": 3}
FIELDS: dict[str, Any] = {
    "data": {"name": "people", "options": OPTIONS}, "recipe": {"steps": 60, "batch": 12}, "take": "all",
    "model": {"network": "llama", "options": {"layers": 1, "width": 16, "heads": 2, "ff": 16}},
    "method": {"name": "npo", "settings": {"epochs": 2}}, "audit": {"leave_out": ["relearning"]}, "requests": 3,
}  # fmt: skip
NAMES = list(dict.fromkeys(text.group for text in texts("people", **OPTIONS).part("forget")))


def job(**fields: Any) -> TextRequests:
    return TextRequests.of(**{**FIELDS, **fields})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Served]]:
    out = tmp_path_factory.mktemp("sequence") / "out"
    return out, run(job(), out)


def test_each_request_starts_from_the_model_before_without_the_people_who_went(done: tuple[Path, list[Served]]) -> None:
    out, served = done
    third = LanguageJob.load(out / "request-03" / "job.yaml")
    assert (third.data.forget, third.data.without) == (f"group={NAMES[2]}", NAMES[:2])
    assert Path(third.model.folder or "").parts[-2:] == ("request-02", "model")
    roles = prepare(third, ALONE).roles
    assert {text.group for text in roles["forget"]} == {NAMES[2]}
    assert {text.group for text in roles["retain"]}.isdisjoint(NAMES)
    first = prepare(LanguageJob.load(out / "request-01" / "job.yaml"), ALONE).roles
    assert {text.group for text in first["retain"]} >= set(NAMES[1:])  # they have not asked yet
    assert [each.texts for each in served] == [OPTIONS["attributes"]] * 3  # what was learned of each, no more


def test_what_is_left_of_the_earlier_ones_is_that_of_the_new_model(done: tuple[Path, list[Served]]) -> None:
    out, served = done
    assert [list(each.earlier) for each in served] == [[], [1], [1, 2]]
    model, tokenizer = open_model(out / "request-03" / "model")
    ready = prepare(LanguageJob.load(out / "request-02" / "job.yaml"), ALONE)
    left = probability(respond(model, ready.tokens["forget"], eos=tokenizer.eos_token_id)).mean()
    assert served[2].earlier[2] == pytest.approx(float(left), abs=1e-6)
    assert read_json(out / RECORD)["requests"][2]["earlier"]["2"] == served[2].earlier[2]


def test_a_killed_sequence_goes_on_to_the_same_bits(done: tuple[Path, list[Served]], tmp_path: Path) -> None:
    def kill(of: Any, stage: Any, step: Any) -> None:
        if (tmp_path / "out" / "request-02").exists() and "forget" in of.problem.sources and of.steps == 1:
            of.checkpoint()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job(), tmp_path / "out", watch=[kill])
    assert [each.earlier for each in run(job(), tmp_path / "out")] == [each.earlier for each in done[1]]
    mine, whole = (open_model(of / "request-03" / "model")[0].state_dict() for of in (tmp_path / "out", done[0]))
    assert all(torch.equal(mine[name], whole[name]) for name in whole)


def test_what_is_not_accepted_stays_open_and_goes_with_the_next(tmp_path: Path) -> None:
    served = run(job(take="accepted", requests=[NAMES[0], NAMES[1:]], references=1), tmp_path / "out")
    assert [each.taken for each in served] == [False, False]  # one reference is too few for a verdict
    second = LanguageJob.load(tmp_path / "out" / "request-02" / "job.yaml")
    assert second.data.forget == "group=" + "+".join(NAMES)
    assert (second.model.folder, second.data.without) == (None, [])
    assert read_json(tmp_path / "out" / RECORD)["model"] is None


def test_one_adapter_serves_all_and_what_is_added_by_turns_stays(tmp_path: Path) -> None:
    run(job(adapter="lora", requests=2, method="grad_ascent"), tmp_path / "lora")
    configs = [json.loads((tmp_path / f"lora/request-0{n}/model/adapter_config.json").read_text()) for n in (1, 2)]
    assert {c["base_model_name_or_path"] for c in configs} == {str(tmp_path / "lora/request-01/original")}
    served = run(job(method={"name": "o3", "settings": {"epochs": 1}}, requests=2), tmp_path / "o3")
    assert len(json.loads((tmp_path / "o3/request-02/model/oblivio.json").read_text())["journal"]) > len(
        json.loads((tmp_path / "o3/request-01/model/oblivio.json").read_text())["journal"]
    )
    assert served[1].earlier.keys() == {1}


def test_weights_beside_an_adapter_that_moved_are_not_lost(tmp_path: Path) -> None:
    fields = {k: v for k, v in FIELDS.items() if k not in ("requests", "take")}
    forget(LanguageJob.of(**fields, adapter="lora"), tmp_path / "one")
    forget(LanguageJob.of(**{**fields, "model": str(tmp_path / "one")}), tmp_path / "two")
    changed, _ = open_model(tmp_path / "two" / "model")
    beside, _ = open_model(tmp_path / "one" / "original")
    assert not hasattr(changed, "peft_config")
    norms = [n for n, _ in beside.named_parameters() if "norm" in n]  # no adapter stands there
    assert any(not changed.state_dict()[n].equal(beside.state_dict()[n]) for n in norms)


def test_the_command(done: tuple[Path, list[Served]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from oblivio.cli import main

    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"kind": "language", **FIELDS}))
    assert main(["sequence", str(tmp_path / "job.yaml"), "--out", str(done[0])]) == 0  # it is done already
    assert f"{max(done[1][2].earlier.values()):.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"requests": 9}, "'forget' has 3 groups, too few for 9 requests"),
        ({"requests": [NAMES[0], "nobody"]}, "retain.forget: no text of the group 'nobody'"),
        ({"take": "accepted"}, "without references no request is ever accepted"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_written(
    fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=words):
        run(job(**fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_sequence_in_the_same_folder_is_refused(done: tuple[Path, list[Served]]) -> None:
    with pytest.raises(BadInput, match="was begun with another sequence"):
        run(job(requests=2), done[0])
