"""``oblivio learn``: what it does, writes and prints, and how it goes on after a kill."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from streaming import dataset

import oblivio
from oblivio import data, methods
from oblivio.audits.continual import Comparison
from oblivio.cli import learn, main
from oblivio.cli.codes import FAILED, FINISHED
from oblivio.cli.lookup import example
from oblivio.cli.progress import Look
from oblivio.core.files import read_json
from oblivio.data.history import History
from oblivio.data.history import history as histories
from oblivio.jobs import learning
from oblivio.jobs.course import Course, network_of
from oblivio.jobs.learning import Learning

Cli = Callable[..., SimpleNamespace]

SMALL = ("--stream", "split-digits", "--tasks", "2", "--epochs", "0.1", "--batch", "16", "--hidden", "8")
ER = (*SMALL, "--method", "er", "--buffer", "20", "--replay", "8")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run a command in an empty folder; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", False)

    def run(*words: str) -> SimpleNamespace:
        capsys.readouterr()
        code = main(words)
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def asked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Learning, Path]]:
    """The job and folder that words ask for; nothing is run."""

    def of(*words: str) -> tuple[Learning, Path]:
        found: list[Any] = []
        with monkeypatch.context() as patch:
            patch.setattr(learn, "run", lambda job, out: found.append((job, out)))
            said = cli("learn", *words)
        assert said.code == FINISHED, said.err
        return found[0]

    return of


def refused(said: SimpleNamespace, *words: str) -> None:
    """Bad input: exit code 2, one line with these words, nothing printed and nothing written."""
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == []
    assert said.out == ""
    assert list(Path().iterdir()) == []


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(oblivio.load(folder).state_dict())


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- words


def test_help_has_the_settings_of_the_method_and_imports_no_torch(cli: Cli) -> None:
    said = cli("learn", "--method", "der-pp", "--help")
    assert said.code == FINISHED
    assert [flag for flag in ("--alpha", "--buffer", "--stream", "--scenario", "--trace") if flag not in said.out] == []
    assert "--method er --help" in " ".join(cli("learn", "--help").out.split())
    commands = [["learn", "--help"], ["learn", "--method", "er", "--help"], ["bench", "continual", "--help"]]
    code = f"import sys; from oblivio.cli import main\nfor words in {commands!r}:\n    assert main(words) == 0\n"
    code += "    assert 'torch' not in sys.modules, words"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_options_are_a_job(asked: Callable[..., tuple[Learning, Path]]) -> None:
    job, out = asked(
        "--stream", "blurry-digits", "--scenario", "task", "--method", "er-ace", "--lr", "1e-2",
        "--with", "cbp:rho=1e-3", "--order", "3", "--valid", "0.1", "--stream-option", "share=0.2", "--tasks", "5",
        "--trace", "4", "--seed", "7",
        "--no-references", "--forget", "ids=17,99", "--forget-method", "salun", "--model", "small-cnn",
    )  # fmt: skip
    assert job == Learning.of(
        stream="blurry-digits", seed=7, trace=4, references=False, model="small-cnn",
        options={"scenario": "task", "order": 3, "valid": 0.1, "share": 0.2, "tasks": 5},
        method={"name": "er_ace", "settings": {"lr": 0.01}, "pieces": [{"name": "cbp", "settings": {"rho": "1e-3"}}]},
        forget={"ids": ["17", "99"], "method": "salun"},
    )  # fmt: skip
    assert out == Path("runs/blurry-digits-er_ace")


@pytest.mark.parametrize(
    "given",
    [
        ER,
        (*SMALL, "--method", "naive", "--loss", "current", "--scenario", "domain", "--no-references"),
        ("--stream", "split-digits", "--method", "online-ewc", "--normalise", "--tasks", "[[0, 1], [2, 3]]"),
        (
            "--stream",
            "blurry-digits",
            "--method",
            "er",
            "--stream-option",
            "share=0.2",
            "--trace",
            "3",
            "--with",
            "cbp",
        ),
        ("--stream", "split-digits", "--method", "er", "--forget", "ids=17", "--forget-method", "ssd", "--seed", "4"),
        ("--stream", "split-digits", "--method", "icarl", "--drops", "[0.5, 0.7]", "--model", "small-cnn"),
    ],
)
def test_the_recorded_command_is_the_same_job(
    asked: Callable[..., tuple[Learning, Path]], given: tuple[str, ...]
) -> None:
    job, _ = asked(*given)
    again, _ = asked(*shlex.split(learn.words(job))[2:])
    assert again == job.but(model=again.model)
    assert again.model.options == job.model.options


def test_what_cannot_be_learned_is_told_and_nothing_is_written(cli: Cli) -> None:
    er = ("--method", "er")
    refused(cli("learn", *er), "--stream is needed", "split-digits")
    refused(cli("learn", "--stream", "split-digits"), "--method is needed", "oblivio methods")
    refused(cli("learn", "--stream", "split-digitz", *er), "'digits'")
    refused(cli("learn", "--stream", "splitt-digits", *er), "'split'")
    refused(cli("learn", "--stream", "split-digits", "--method", "salun"), "salun", "unlearning", "continual")
    refused(cli("learn", "--stream", "split-digits", *er, "--buffer", "0"), "buffer", "greater than 0")
    refused(cli("learn", "--stream", "split-digits", *er, "--scenario", "clas"), "'class'")
    refused(cli("learn", "--stream", "split-digits", *er, "--stream-option", "shaer=1"), "shaer")
    refused(cli("learn", "--stream", "split-digits", *er, "--stream-option", "share"), "NAME=VALUE")
    refused(cli("learn", "--stream", "split-digits", *er, "--tasks", "[1"), "YAML")
    refused(cli("learn", "--stream", "split-digits", *er, "--tasks", "11"), "11 tasks of 10 classes")
    refused(cli("learn", "--stream", "split-digits", *er, "--hidden", "a"), "--hidden a", "100,100")
    refused(cli("learn", "--stream", "split-digits", *er, "--model", "mpl"), "'mlp'")
    refused(cli("learn", "--stream", "split-digits", *er, "--trace", "-1"), "trace", "-1")
    refused(cli("learn", "--stream", "split-digits", *er, "--with", "cpb"), "'cbp'")
    refused(cli("learn", "--stream", "split-digits", *er, "--forget", "class=3"), "ids=17,99")
    refused(cli("learn", "--stream", "split-digits", *er, "--forget", "ids=nobody"), "nobody")
    refused(cli("learn", "--stream", "split-digits", *er, "--forget", "ids=1", "--forget-method", "er"), "continual")
    refused(cli("learn", "--stream", "split-digits", *er, "--forget-method", "salun"), "--forget ids=")


# --- what is learned and written


def test_a_stream_is_learned_beside_joint_and_naive_training(cli: Cli) -> None:
    said = cli("learn", *ER, "--out", "one")
    assert (said.code, said.err) == (FINISHED, "")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["accuracy,", "after", "after"]
    assert [
        name
        for name in ("average accuracy (ACC)", " joint ", " er ", " naive ", "cost / joint")
        if name not in said.out
    ] == []
    assert "\x1b" not in said.out
    out = Path("one")
    names = {path.name for path in out.iterdir()}
    assert names == {"learn.json", "learner", "outcome.json", "history.json", "report.json", "report.html", "model"}
    history = History.from_json(read_json(out / "history.json"))
    assert history.table() in "\n".join(line.rstrip() for line in lines)
    results = Comparison.from_json(read_json(out / "report.json"))
    assert results.methods("class") == ["er", "joint", "naive"]
    assert results.of("class", "er")[0].history.records == history.records
    assert results.cost("class", "joint", "joint").mean == 1
    assert results.cost("class", "er", "rows").mean == 20
    record = read_json(out / "learn.json")
    assert record["command"].startswith("oblivio learn --stream split-digits --method er --buffer 20")
    assert record["versions"]["torch"] == torch.__version__
    assert "Average over the tasks so far" in (out / "report.html").read_text()


def test_the_model_that_is_written_is_that_of_the_learner(cli: Cli) -> None:
    assert cli("learn", *ER, "--no-references", "--out", "one").code == FINISHED
    assert not (Path("one") / "report.html").exists()
    model, learner = oblivio.load("one"), learning.reopened(Path("one"))
    x = learner.problem.source("new").batch(torch.arange(5))["x"]
    assert torch.equal(model(x), learner.predict(x))
    assert learner.turn == 2


def test_naive_training_is_not_put_beside_itself(cli: Cli) -> None:
    assert cli("learn", *SMALL, "--method", "naive", "--out", "one").code == FINISHED
    assert Comparison.from_json(read_json(Path("one/report.json"))).methods("class") == ["naive", "joint"]


def test_the_lines_spend_what_the_method_spends() -> None:
    assert learning.baseline({"lr": 0.1, "momentum": 0.9, "epochs": 3, "batch": 10, "beta": 1}) == {
        "epochs": 3, "batch": 10, "lr": 0.1, "momentum": 0.9,
    }  # fmt: skip
    assert learning.baseline({"lr": 1e-4, "epochs": 3, "batch": 10}) == {"epochs": 3, "batch": 10}  # the rate is Adam's
    assert learning.baseline({"lr_max": 0.1, "epochs": 256, "batch": 16}) == {}  # epochs over what is stored


@pytest.mark.parametrize(("inputs", "name"), [((3, 8, 8), "small-cnn"), ((1, 8, 8), "mlp"), ((64,), "mlp")])
def test_the_default_network(inputs: tuple[int, ...], name: str) -> None:
    stream = data.split(dataset(inputs=inputs), tasks=3)
    assert network_of(stream).architecture.name == name


def test_a_method_is_not_run_where_it_is_not_for() -> None:
    stream = data.split(dataset(), tasks=3)
    assert learning.refusal("er", stream) is None
    spec = methods.spec("er")
    with pytest.MonkeyPatch.context() as patch:
        for facts, words in (
            ({"scenarios": ("task",)}, "not for the scenario class, but for task"),
            ({"tasks": ("regression",)}, "not for classification"),
            ({"needs": ("new", "valid")}, "needs valid"),
        ):
            patch.setattr(methods, "spec", lambda name, facts=facts: dataclasses.replace(spec, **facts))
            assert words in learning.refusal("er", stream)
    whole = data.split(dataset(each=20), tasks=3, valid=0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "spec", lambda name: dataclasses.replace(spec, needs=("new", "valid")))
        assert learning.refusal("er", whole) is None


# --- folders and kills


def test_a_folder_of_something_else_is_left_alone(cli: Cli) -> None:
    Path("one").mkdir()
    Path("one/mine").write_text("mine")
    said = cli("learn", *ER, "--out", "one")
    assert said.code == 2
    assert "not empty" in said.err
    assert [path.name for path in Path("one").iterdir()] == ["mine"]


def test_a_finished_run_is_not_done_again(cli: Cli) -> None:
    assert cli("learn", *ER, "--no-references", "--out", "one").code == FINISHED
    said = cli("learn", *ER, "--no-references", "--out", "one")
    assert said.code == 2
    assert "finished run" in said.err


def killed(cli: Cli, monkeypatch: pytest.MonkeyPatch, at: int, *words: str) -> SimpleNamespace:
    """A command that is interrupted at its step ``at``, with a checkpoint of the learner just before."""
    steps = 0

    def interrupt(self: Look, run: Any, stage: Any, step: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            run.checkpoint()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Look, "__call__", interrupt)
        return cli("learn", *words)


STEPS = 4  # of an experience of ER


@pytest.mark.parametrize("more", [(), ("--trace", "1")], ids=["plain", "traced"])
@pytest.mark.parametrize("at", [2, STEPS, STEPS + 1, 3 * STEPS + 2])
def test_a_killed_run_goes_on_to_the_same_bits(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, at: int, more: tuple[str, ...]
) -> None:
    assert cli("learn", *ER, *more, "--out", "whole").code == FINISHED
    said = killed(cli, monkeypatch, at, *ER, *more, "--out", "one")
    assert (said.code, said.err) == (FAILED, "oblivio: stopped: interrupted; go on with the same command\n")
    assert "was begun with another method" in cli("learn", *ER, *more, "--beta", "2", "--out", "one").err
    assert cli("learn", *ER, *more, "--out", "one").code == FINISHED
    assert read_json(Path("one/history.json")) == read_json(Path("whole/history.json"))
    assert equal(weights(Path("one")), weights(Path("whole")))
    mine, theirs = (read_json(Path(name, "report.json"))["outcomes"] for name in ("one", "whole"))
    for a, b in zip(mine, theirs, strict=True):
        assert a["history"] == b["history"]
        assert [(t["steps"], t["forward"], t["backward"], t["carried"]) for t in a["ledger"]["turns"]] == [
            (t["steps"], t["forward"], t["backward"], t["carried"]) for t in b["ledger"]["turns"]
        ]
        assert {k: v for k, v in a["ledger"].items() if k not in ("turns", "peak")} == {
            k: v for k, v in b["ledger"].items() if k not in ("turns", "peak")
        }


def test_what_was_evaluated_is_not_evaluated_again(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert killed(cli, monkeypatch, STEPS + 1, *ER, "--no-references", "--out", "one").code == FAILED
    assert len(json.loads(Path("one/outcome.json").read_text())["history"]["records"]) == 1
    turns = []
    evaluated = histories.evaluated
    monkeypatch.setattr(histories, "evaluated", lambda *given: turns.append(given[0].problem.turn) or evaluated(*given))
    assert cli("learn", *ER, "--no-references", "--out", "one").code == FINISHED
    assert turns == [2]


def test_a_course_without_a_folder_is_the_same(tmp_path: Path) -> None:
    job = Learning.of(
        stream="split-digits", method={"name": "er", "settings": {"epochs": 0.1, "buffer": 10}}, references=False,
        options={"tasks": 2}, model={"name": "mlp", "options": {"hidden": [8]}},
    )  # fmt: skip
    (course,), _ = learning.courses(job)
    assert course.run()[1].history.records == course.run(tmp_path / "kept")[1].history.records
    assert course.finished(tmp_path / "kept")
    assert not Course(course.name, course.plan, course.stream, course.model).finished(tmp_path / "nothing")


# --- forgetting at the end


def test_rows_are_forgotten_wherever_the_learner_holds_them(cli: Cli) -> None:
    assert cli("learn", *ER, "--no-references", "--out", "one").code == FINISHED
    held = next(part for part in learning.reopened(Path("one")).parts.values() if type(part).__name__ == "Buffer")
    gone = [str(name) for name in held.ids[:2].tolist()]
    said = cli("learn", *ER, "--no-references", "--forget", f"ids={','.join(gone)}", "--out", "two")
    assert said.code == FINISHED
    assert "2 rows removed" in said.out
    assert "weights: not changed" in said.out
    assert read_json(Path("two/receipt.json"))["weights"].startswith("not changed")
    assert equal(weights(Path("one")), weights(Path("two")))


def test_rows_are_forgotten_by_a_method_out_of_the_weights_too(cli: Cli) -> None:
    assert cli("learn", *ER, "--no-references", "--out", "one").code == FINISHED
    words = ("--forget", "ids=17,99", "--forget-method", "finetune")
    said = cli("learn", *ER, "--no-references", *words, "--out", "two")
    assert said.code == FINISHED, said.err
    assert "changed by finetune" in said.out
    assert "average accuracy" in said.out
    assert not equal(weights(Path("one")), weights(Path("two")))


# --- what there is


def test_continual_methods_are_listed_and_shown(cli: Cli) -> None:
    assert "continual method" in cli("methods").out
    said = " ".join(cli("show", "er").out.split())
    assert "Scenarios class, task, domain" in said
    assert "oblivio learn --stream split-digits --scenario class --method er" in said


def test_the_example_of_every_continual_method_is_a_job(asked: Callable[..., tuple[Learning, Path]]) -> None:
    names = [n for n in methods.names if methods.spec(n).kind == "continual" or methods.spec(n).needs == ("new",)]
    for name in names:
        job, _ = asked(*example(methods.spec(name)).split()[2:])
        assert name in (job.method.name, *(piece.name for piece in job.method.pieces))
