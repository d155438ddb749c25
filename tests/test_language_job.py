"""The main job for language models, from a command or a request in Python to a folder and a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import oblivio as ob
from oblivio import methods
from oblivio.audits.report import Report
from oblivio.cli import language
from oblivio.core.errors import BadInput
from oblivio.core.team import ALONE
from oblivio.jobs.language.job import EXAMPLE, Adapter, LanguageJob
from oblivio.jobs.language.prepare import prepare
from oblivio.jobs.language.run import run
from oblivio.networks.language import open_model

SMALL: dict[str, Any] = {
    "data": {"name": "people", "options": {"authors": 6, "forget": 2, "world": 2, "holdout": 2, "attributes": 4}},
    "model": {"network": "llama", "options": {"layers": 1, "width": 16, "heads": 2, "ff": 16}},
    "recipe": {"steps": 20, "batch": 12},
    "method": {"name": "npo", "settings": {"epochs": 2}},
}


def job(**fields: Any) -> LanguageJob:
    return LanguageJob.of(**{**SMALL, **fields})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("job") / "run"
    run(job(references=2, audit={"show_texts": True}), out)
    return out


def test_a_job_leaves_a_model_that_opens_and_a_report(finished: Path) -> None:
    model, tokenizer = open_model(finished / "model")
    assert model.config.num_hidden_layers == 1
    report = json.loads((finished / "report.json").read_text())
    assert report["verdict"]["word"] == "INCONCLUSIVE"  # two references are too few
    assert [s["kind"] for s in report["subjects"]] == ["outcome", "original", "reference", "reference", "control"]
    assert {f["id"] for f in report["figures"] if f["state"] == "failed"} == set()
    known = {f["id"] for f in report["figures"] if f["state"] == "figure"}
    assert {"forget", "rephrased", "extraction", "truth_distance", "min_k", "lira", "relearning", "utility"} <= known
    assert tokenizer.eos_token_id == 1
    assert (finished / "report.html").read_text().startswith("<!")


def test_no_text_leaves_the_run_unless_asked_for(finished: Path, tmp_path: Path) -> None:
    said = [json.loads(line) for line in (finished / "texts.jsonl").read_text().splitlines()]
    assert {each["source"] for each in said} == {"forget", "retain", "test", "holdout"}
    run(job(), tmp_path / "run")
    assert not (tmp_path / "run" / "texts.jsonl").exists()
    prompts = {each["prompt"] for each in said}
    for file in ("report.json", "report.html", "log.jsonl"):
        text = (tmp_path / "run" / file).read_text()
        assert not any(prompt in text for prompt in prompts)


def test_the_same_job_gives_the_same_bits(finished: Path, tmp_path: Path) -> None:
    run(job(references=2), tmp_path / "again")
    one, other = (open_model(path / "model")[0].state_dict() for path in (finished, tmp_path / "again"))
    assert all(one[name].equal(other[name]) for name in one)


def test_a_killed_job_goes_on_to_the_same_bits(finished: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(inner: Any, stage: Any, step: Any) -> None:
        if "forget" in inner.problem.sources and inner.steps == 1:
            inner.checkpoint()
            raise Killed

    with pytest.raises(Killed):
        run(job(references=2), tmp_path / "run", watch=[kill])
    run(job(references=2), tmp_path / "run", resume=True)
    one, other = (open_model(path / "model")[0].state_dict() for path in (finished, tmp_path / "run"))
    assert all(one[name].equal(other[name]) for name in one)


def test_a_folder_with_an_adapter_becomes_a_folder_of_peft(finished: Path, tmp_path: Path) -> None:
    asked = job(model={"folder": str(finished / "model")}, adapter="lora", recipe={})
    run(asked, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(finished / "model")
    open_model(tmp_path / "run" / "model")
    report = Report.load(tmp_path / "run")
    assert report.value("forget", "weight noise") != report.value("forget", "original")


def test_a_model_that_was_changed_before_is_audited(finished: Path, tmp_path: Path) -> None:
    outcome = run(job(method=None, audit={"outcome": str(finished)}), tmp_path / "run")
    assert outcome.report.value("forget") == Report.load(finished).value("forget")
    assert not (tmp_path / "run" / "model").exists()


def test_from_python_with_texts_of_ones_own(tmp_path: Path) -> None:
    ready = prepare(job(), ALONE)
    texts = ready.texts
    model = ready_model(ready)
    rows = [{"question": t.prompt, "answer": t.answer} for t in texts.part("forget")]
    (tmp_path / "gone.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kept = texts.part("retain")
    problem = ob.Problem.causal_lm(model, ready.tokenizer, forget=tmp_path / "gone.jsonl", retain=kept, pack=True)
    assert len(problem.source("forget")) == len(rows)
    before = {n: w.clone() for n, w in problem.nets.named_parameters()}
    outcome = ob.forget(problem, "npo", beta=0.1, epochs=1, adapter=ob.where.lora(r=2))
    assert all(w.equal(before[n]) for n, w in problem.nets.named_parameters())
    assert outcome.report.value("forget") is not None
    assert outcome.chosen.settings["optimiser"] == "adamw"


def ready_model(ready: Any) -> Any:
    from oblivio.jobs.language.training import learn

    return learn(ready.tokens["retain"], ready.tokenizer, 0, steps=2, layers=1, width=16, heads=2, ff=16)


def test_two_processes_with_shards_leave_the_same_folder(finished: Path, tmp_path: Path) -> None:
    asked = job(model={"folder": str(finished / "model")}, recipe={}, processes=2, sharding="full").to_yaml()
    (tmp_path / "job.yaml").write_text(asked)
    run(job(model={"folder": str(finished / "model")}, recipe={}), tmp_path / "whole")
    made = subprocess.run(
        ["torchrun", "--nproc-per-node", "2", "-m", "oblivio", "forget", "job.yaml", "--out", "shards"],
        cwd=tmp_path, env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (tmp_path / "shards" / "report.json").exists(), made.stderr
    one, other = (open_model(tmp_path / name / "model")[0].state_dict() for name in ("whole", "shards"))
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-5


EXAMPLES = [EXAMPLE, (Path(__file__).parent.parent / "examples" / "tofu.yaml").read_text()]


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_are_jobs_and_options_beside_them_win(text: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    options = {"job": tmp_path / "job.yaml", "seed": 3, "beta": 0.5}
    read = language.job_of(options, methods.spec("npo"))
    assert read.method is not None
    assert (read.method.name, read.method.settings["beta"], read.seed) == ("npo", 0.5, 3)
    assert read.recipe.steps == 600  # as the file has it
    (tmp_path / "job.yaml").write_text(read.to_yaml())  # with every default, among them no adapter
    assert language.job_of({"job": tmp_path / "job.yaml", "adapter": "lora"}).adapter == Adapter()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data": {"name": "people", "forget": "forgotten"}}, "has no part 'forgotten'; did you mean 'forget'"),
        ({"data": {"name": "people", "retain": "forget+retain"}}, "texts to forget are also among those to retain"),
        ({"model": {"folder": "nowhere"}}, "is no language model"),
        ({"method": None}, "it says how to forget"),
        ({"method": "npoo"}, "there is no method 'npoo'; did you mean 'npo'"),
        ({"audit": {"attacks": ["prompt"]}}, "there is no attack 'prompt'"),
        ({"audit": {"leave_out": ["forgot"]}}, "there is no probe 'forgot'"),
        ({"audit": {"tolerances": {"mia": 1}}}, "is not judged by 'mia'"),
        ({"data": {"name": "people", "max_length": 4}}, "tokens"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_written(
    fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=words):
        run(job(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_commands_know_a_language_model_by_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oblivio.cli import main

    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"kind": "language", **SMALL}))
    monkeypatch.chdir(tmp_path)
    assert main(["forget", "job.yaml", "--seed", "3", "--out", "one"]) == 4
    assert yaml.safe_load((tmp_path / "one" / "job.yaml").read_text())["seed"] == 3
    assert main(["audit", "one", "--out", "two"]) == 4
    assert main(["init", "--language"]) in (0, None)
