"""The command line: what it prints, what it asks of the verbs, and how it ends."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console

import oblivio
from oblivio.bench.row import Row
from oblivio.claims import runner
from oblivio.claims.claim import Rejected
from oblivio.claims.records import Record
from oblivio.cli import console, demo, forget, language, main, progress, records, settings
from oblivio.cli.codes import FAILED, FINISHED, INCONCLUSIVE, REJECTED
from oblivio.cli.lookup import KINDS, example
from oblivio.core.errors import BadInput, Stopped
from oblivio.jobs import folder as folders
from oblivio.jobs.job import Job
from oblivio.methods import registry
from oblivio.registry import Setting, Spec

Cli = Callable[..., SimpleNamespace]

COMMANDS = [
    [], ["forget"], ["forget", "--method", "salun"], ["resume"], ["init"], ["demo"], ["methods"], ["show"],
    ["audit"], ["compare"], ["purge"], ["cite"], ["claims"], ["claims", "run"], ["claims", "table"],
    ["claims", "verify"], ["bench"], ["bench", "speed"], ["bench", "unlearning"], ["tune"], ["problems"], ["sequence"],
    ["learn"], ["learn", "--method", "er"], ["bench", "continual"], ["cache"], ["cache", "list"], ["cache", "clear"],
]  # fmt: skip
SMALL = """\
data: {name: digits, valid: 0}
model: {name: mlp, options: {hidden: [16]}}
recipe: {epochs: 2}
forget: class=3
method: {name: finetune, settings: {epochs: 1}}
"""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run a command in an empty folder, 120 columns wide, without colours; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", False)

    def run(*words: str) -> SimpleNamespace:
        capsys.readouterr()
        code = main(words)
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


def refused(said: SimpleNamespace, *words: str) -> None:
    """Bad input: exit code 2, one line with these words, nothing printed and nothing written."""
    assert said.code == 2
    assert said.err.startswith("oblivio: ")
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == []
    assert said.out == ""
    assert list(Path().iterdir()) == []


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("job") / "small.yaml"
    path.write_text(SMALL)
    return str(path)


# --- help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(cli: Cli, command: list[str]) -> None:
    said = cli(*command, "--help")
    assert said.code == FINISHED
    names = command[:1] if "--method" in command else command
    assert f"Usage: {' '.join(['oblivio', *names])} [OPTIONS]" in said.out
    assert said.err == ""


def test_no_help_and_no_list_imports_torch() -> None:
    commands = [[*command, "--help"] for command in COMMANDS]
    commands += [
        ["--version"],
        ["methods"],
        ["methods", "--for", "image"],
        ["show", "salun"],
        ["init"],
        ["show", "nil"],
    ]
    code = f"import sys; from oblivio.cli import main\nfor words in {commands!r}:\n    main(words)\n"
    code += "    assert 'torch' not in sys.modules, words"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.alone
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_there_within_half_a_second(command: list[str]) -> None:
    """Of this machine's processors, so that what else they do does not count."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "oblivio", *command, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert any(seconds() <= 0.5 for _ in range(5))  # a slow moment of the machine is measured again


def test_nothing_given_is_a_plea_for_help(cli: Cli) -> None:
    assert "Usage: oblivio" in cli().out
    refused(cli("cache"), "cache needs a command", "oblivio cache --help")


def test_the_version(cli: Cli) -> None:
    assert cli("--version").out == f"oblivio {oblivio.__version__}\n"


@pytest.mark.parametrize("name", registry.names)
def test_the_settings_of_every_method_are_options(cli: Cli, name: str) -> None:
    spec = registry.spec(name)
    flags = ["--" + word.replace("_", "-") for word in settings.keywords(spec, forget.OPTIONS).values()]
    assert set(flags).isdisjoint("--" + word.replace("_", "-") for word in [*forget.OPTIONS, "with", "help"])
    said = cli("forget", "--method", name.replace("_", "-"), "--help")
    assert [flag for flag in flags if f"{flag} " not in said.out] == []
    assert all(f"default {setting.default}" in said.out for setting in spec.settings.values())


def test_help_without_a_method_says_how_to_see_its_settings(cli: Cli) -> None:
    assert "--method salun --help" in " ".join(cli("forget", "--help").out.split())


@pytest.mark.parametrize(
    ("annotation", "shape"),
    [
        ("Annotated[float, Field(gt=0, le=1)]", ("float", "above 0, at most 1")),
        ("Annotated[int, Field(ge=-2), 'words']", ("int", "at least -2")),
        ("Annotated[float | None, Field(lt=1e-3)]", ("float or None", "below 0.001")),
        ("Literal['expand', 'shrink']", ("str", "expand or shrink")),
        ("Literal['all']", ("str", "all")),
        ("Annotated[Literal['a', 'b'], Field()]", ("str", "a or b")),
        ("bool", ("bool", "")),
        ("list[int]", ("list[int]", "")),
    ],
)
def test_an_annotation_in_words(annotation: str, shape: tuple[str, str]) -> None:
    assert settings.shape(Setting(annotation, None)) == settings.Shape(*shape)


# --- methods and show


def test_every_method_is_listed(cli: Cli) -> None:
    said = cli("methods")
    assert said.code == FINISHED
    assert [name for name in registry.names if f" {name} " not in said.out] == []


@pytest.mark.parametrize("kind", ["image", "tabular", "graph", "regression", "classification", "class", "rows"])
def test_methods_for_a_kind(cli: Cli, kind: str) -> None:
    said = cli("methods", "--for", kind).out
    for name in registry.names:
        spec = registry.spec(name)
        served = kind in (*spec.tasks, *spec.serves) or bool(KINDS.get(kind, set()) & set(spec.tasks))
        assert (f" {name} " in said) == served, name


@pytest.mark.parametrize("name", registry.names)
def test_the_card_of_every_method(cli: Cli, name: str) -> None:
    spec, said = registry.spec(name), cli("show", name)
    text = " ".join(said.out.split())
    assert said.code == FINISHED
    assert text.startswith(f"{name}: {spec.summary}")
    assert [part for part in (spec.paper, spec.cost, spec.refusal, *spec.aliases) if part not in text] == []
    assert [
        heading for heading in ("Equation", "Needs", "Fails", "Paper", "Example", "Claim") if heading not in text
    ] == []


@pytest.mark.parametrize("name", registry.names)
def test_the_example_of_every_method_is_a_job(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked: list[Job] = []
    monkeypatch.setattr(forget, "run", lambda job, out: asked.append(job))
    monkeypatch.setattr(language, "run", lambda job, out: asked.append(job))
    if registry.spec(name).kind == "protection" or not example(registry.spec(name)).startswith("oblivio forget"):
        assert example(registry.spec(name)) in " ".join(cli("show", name).out.split())
        return
    words = next(line for line in cli("show", name).out.splitlines() if "oblivio forget" in line).split()
    assert cli(*words[1:]).code == FINISHED
    assert asked[0].method.name == name or asked[0].method.pieces[0].name == name


def record(name: str, verdict: str | None = "holds", reason: str = "held: a > b (2 > 1)") -> Record:
    versions, machine = {"torch": "2"}, {"type": "x"}
    return Record(name, verdict, [0, 1, 2], {"a": [2.0]}, {}, reason, "oblivio", 1.0, "abcdefghij", versions, machine)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder of records."""
    monkeypatch.setattr("oblivio.claims.records.FOLDER", tmp_path / "claims")
    (tmp_path / "claims").mkdir()
    return tmp_path / "claims"


def test_a_record_is_a_verdict(cli: Cli, recorded: Path) -> None:
    assert "not yet run" in cli("show", "relabel").out
    for one in (record("relabel_class"), record("relabel_rows", "fails"), record("relabelled_more")):
        (recorded / f"{one.id}.json").write_text(json.dumps(asdict(one)))
    assert records.verdict("relabel", ["relabel", "relabelled"]) == "1 of 2 hold"
    assert "holds over 3 seeds" in cli("show", "relabel").out


# --- claims


def test_claims_are_run_and_told_as_they_come(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(ids: list[str], *, seeds: int, fast: bool, report: Callable[[Record], None]) -> None:
        assert (seeds, fast) == (4, True)
        for name in ids:
            report(record(name, None))

    monkeypatch.setattr(runner, "run", run)
    said = cli("claims", "run", "salun", "ssd", "--seeds", "4", "--fast")
    assert said.code == FINISHED
    assert said.out.splitlines() == [f"{name}: no verdict (1 s); held: a > b (2 > 1)" for name in ("salun", "ssd")]


def test_a_claim_that_holds_of_its_control_is_rejected(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise Rejected("claim x holds of its control too")

    monkeypatch.setattr(runner, "run", run)
    said = cli("claims", "run")
    assert (said.code, said.err) == (REJECTED, "oblivio: claim x holds of its control too\n")


def test_an_unknown_claim_and_too_few_seeds_are_bad_input(cli: Cli) -> None:
    refused(cli("claims", "run", "salnu"), "'salun'")
    refused(cli("claims", "run", "salun", "--seeds", "2"), "at least 3")
    refused(cli("claims", "verify", "salnu"), "'salun'")


def test_the_table_of_claims(cli: Cli, recorded: Path) -> None:
    one = record("salun", "fails", "failed: a > b (1 > 2); failed: a > c (1 > 3); held: a > d (1 > 0). It is so")
    (recorded / "salun.json").write_text(json.dumps(asdict(one)))
    lines = [" ".join(line.split()) for line in cli("claims", "table").out.splitlines()]
    assert "salun fails 3 a > b (1 > 2); a > c (1 > 3)" in lines
    assert "ssd not yet run" in lines


def test_a_claim_is_verified(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "verify", lambda name, fast: [])
    assert cli("claims", "verify", "salun").code == FINISHED
    monkeypatch.setattr(runner, "verify", lambda name, fast: ["a of seed 0 is 1, recorded 2"])
    said = cli("claims", "verify", "salun")
    assert (said.code, said.out) == (FAILED, "a of seed 0 is 1, recorded 2\n")


# --- bench


def test_the_bench_of_speed_is_measured_and_written(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"met": Row("one", 2.0, [1.0]), "missed": Row("other", 2.0, [3.0])}
    monkeypatch.setattr("oblivio.bench.speed.BENCHES", {name: lambda row=row: row for name, row in limits.items()})
    assert cli("bench", "speed", "met", "--json", "speed.json").code == FINISHED
    assert [row["name"] for row in json.loads(Path("speed.json").read_text())["rows"]] == ["one"]
    Path("speed.json").unlink()
    said = cli("bench", "speed")
    assert said.code == FAILED
    assert "one" in said.out
    assert "misses" in said.out
    refused(cli("bench", "speed", "mett"), "'met'")
    refused(cli("bench", "speed", "--json", "no/such.json"), "no/such.json")


# --- bad input


def test_an_unknown_method_dataset_option_command_and_kind_are_told_with_the_nearest(cli: Cli) -> None:
    refused(cli("show", "salnu"), "'salnu'", "'salun'")
    refused(cli("show", "rl"), "'relabel'")
    refused(cli("forget", "--method", "salnu", "--help"), "'salun'")
    refused(cli("forgte"), "'forget'")
    refused(cli("methods", "--for", "imgae"), "'image'")
    refused(cli("forget", "--method", "salun", "--keeep", "1"), "--keep")
    asked = ["--data", "digitz", "--model", "mlp", "--forget", "class=3", "--method", "salun"]
    refused(cli("forget", *asked), "'digits'")


def test_a_job_that_lacks_something(cli: Cli) -> None:
    refused(cli("forget"), "data")
    refused(cli("forget", "--data", "digits", "--model", "mlp", "--method", "salun"), "forget")
    refused(cli("forget", "none.yaml"), "none.yaml", "No such file")
    refused(cli("resume", "nothing"), "nothing", "no run")


def test_a_setting_out_of_its_range(cli: Cli) -> None:
    asked = ["--data", "digits", "--model", "mlp", "--forget", "class=3", "--method", "salun"]
    refused(cli("forget", *asked, "--keep", "2"), "keep", "2.0", "less than or equal to 1")
    refused(cli("forget", *asked, "--keep", "much"), "--keep", "valid number")
    refused(cli("forget", *asked, "--references", "-1"), "references.count", "-1")
    refused(cli("forget", *asked, "--with", "sma"), "'sam'")


# --- from words to a job


def asked_of(cli: Cli, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Job, Path]:
    asked: list[Any] = []
    monkeypatch.setattr(forget, "run", lambda job, out: asked.append((job, out)))
    said = cli("forget", *words)
    assert said.code == FINISHED, said.err
    return asked[0]


def test_options_are_a_job(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    job, out = asked_of(
        cli, monkeypatch, "--data", "digits", "--model", "mlp", "--weights", "w.safetensors", "--forget", "class=3",
        "--method", "boundary-unlearning", "--variant", "shrink", "--lr", "1e-4", "--references", "2",
        "--goal", "chance", "--with-duplicates", "--seed", "7", "--with", "sam:rho=0.1", "--with", "loreun",
    )  # fmt: skip
    assert job == Job.of(
        data="digits", model={"name": "mlp", "weights": "w.safetensors"}, references=2, seed=7,
        forget={"rows": "class=3", "goal": "chance", "with_duplicates": True},
        method={"name": "boundary_unlearning", "settings": {"variant": "shrink", "lr": 1e-4},
                "pieces": [{"name": "sam", "settings": {"rho": 0.1}}, "loreun"]},
    )  # fmt: skip
    assert out == Path("runs/boundary_unlearning")


def test_options_win_over_the_job_file(cli: Cli, monkeypatch: pytest.MonkeyPatch, small: str) -> None:
    job, out = asked_of(cli, monkeypatch, small, "--lr", "0.5", "--seed", "3", "--out", "there")
    assert job.method.settings == {"epochs": 1, "lr": 0.5}
    assert (job.seed, job.recipe, job.data.valid) == (3, Job.load(small).recipe, 0)
    assert out == Path("there")


def test_another_method_does_not_take_the_settings_of_the_one_in_the_job_file(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, small: str
) -> None:
    job, out = asked_of(cli, monkeypatch, small, "--method=npo", "--npo-forget", "2")
    assert (job.method.name, job.method.settings) == ("npo", {"forget": 2.0})
    assert out == Path("runs/small")


def test_lists_and_none_are_read_as_yaml() -> None:
    spec = Spec("m", "m", settings={"layers": Setting("list[int]", None), "cap": Setting("float | None", 1.0)})
    assert settings.given(spec, {"layers": "[1, 2]", "cap": "3"}, ()) == {"layers": [1, 2], "cap": 3}
    assert settings.given(spec, {"layers": "[1]", "cap": None}, ()) == {"layers": [1]}


def test_init_prints_a_job_that_is_valid(cli: Cli, tmp_path: Path) -> None:
    said = cli("init")
    (tmp_path / "job.yaml").write_text(said.out)
    assert said.out == Job.example()
    assert Job.load(tmp_path / "job.yaml").method.name in registry.names


# --- the main job


def test_the_main_job(cli: Cli, small: str, tmp_path: Path) -> None:
    said = cli("forget", small, "--references", "1", "--out", "runs/one")
    assert (said.code, said.err) == (INCONCLUSIVE, "")
    assert said.out.startswith("INCONCLUSIVE\n- there are too few references (1)")
    found = json.loads((tmp_path / "runs/one/report.json").read_text())
    names = [subject["name"] for subject in found["subjects"]]
    assert names == ["finetune", "original", "retrained 1", "output masked", "weight noise"]
    assert [name for name in names if name not in said.out] == []
    assert "\x1b" not in said.out
    assert (tmp_path / "runs/one" / folders.MODEL / "model.safetensors").exists()
    assert yaml.safe_load((tmp_path / "runs/one" / folders.JOB).read_text())["method"]["settings"]["epochs"] == 1
    assert cli("forget", small, "--out", "runs/one").code == 2
    assert cli("resume", "runs/one").code == 2


def test_the_demo(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "JOB", {**demo.JOB, "recipe": {"epochs": 1}})
    said = cli("demo")
    assert said.code == FINISHED
    rows = ("retrain", "original", "4 retrained", "output masked", "weight noise", "answer hidden")
    assert [row for row in rows if f"\n{row} " not in said.out] == []
    assert "the answer 3 is hidden" in said.out
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Stopped("a floor; the original is untouched"), FAILED, "stopped: a floor; the original is untouched"),
        (BadInput("this\nand that"), 2, "this and that"),
        (OSError(28, "No space left on device", "x"), FAILED, "OSError: [Errno 28] No space left on device: 'x'"),
        (KeyboardInterrupt(), FAILED, "interrupted"),
    ],
)
def test_how_a_job_ends(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, small: str, error: BaseException, code: int, words: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("oblivio.jobs.forget.run", fail)
    said = cli("forget", small)
    assert (said.code, said.out, said.err) == (code, "", f"oblivio: {words}\n")


def test_an_interrupted_job_says_how_to_go_on(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, small: str, tmp_path: Path
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.Look, "__call__", interrupt)
        said = cli("forget", small, "--out", "one")
    assert (said.code, said.err) == (FAILED, "oblivio: stopped: interrupted; go on with: oblivio resume one\n")
    assert cli("resume", "one").code == INCONCLUSIVE
    assert (tmp_path / "one" / folders.MODEL / "model.safetensors").exists()


def test_a_fault_of_ours_is_not_swallowed(cli: Cli, monkeypatch: pytest.MonkeyPatch, small: str) -> None:
    monkeypatch.setattr("oblivio.jobs.forget.run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("forget", small)


def test_the_cache_is_listed_and_cleared(cli: Cli, small: str, own_cache: Path) -> None:
    assert "0 kept" in cli("cache", "list").out
    cli("forget", small)
    listed = cli("cache", "list").out
    assert "mlp" in listed
    assert "1 kept" in listed
    assert cli("cache", "clear").out == "1 removed, 0 kept\n"


# --- where words go


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with console.brief_warnings():
        warnings.simplefilter("default")
        warnings.warn("two rows\nare equal", stacklevel=1)
    assert capsys.readouterr().err == "oblivio: note: two rows are equal\n"


def test_only_the_first_process_speaks(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    said = cli("methods")
    assert (said.out, said.err) == ("", "")
    said = cli("show", "nothing")
    assert (said.code, said.out, said.err) == (2, "", "")


# --- progress


def run(name: str) -> Any:
    return SimpleNamespace(name=name)


def step(t: int, end: int = 100, place: str = "plan") -> Any:
    return SimpleNamespace(t=t, end=end, place=place, loss=None)


def label(run: Any) -> str:
    return run.name


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error as a terminal of 80 columns, looked at after every step and shown at once."""
    text = Terminal()
    monkeypatch.setattr(console, "err", lambda: Console(file=text, force_terminal=True, width=80, _environ={}))
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    return text


def test_progress_names_what_is_done_and_how_far(terminal: io.StringIO) -> None:
    with progress.Line() as line:
        look = progress.Look(line, label)
        for t in range(50):
            look(run("the original"), run("stage"), step(t))
        time.sleep(0.3)
        look(run("salun"), run("stage"), step(0, place="other"))
        time.sleep(0.3)
    said = terminal.getvalue()
    assert [words for words in ("the original", " 50%", "salun", "  1%") if words not in said] == []


def test_a_short_job_shows_no_progress(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    with progress.Line() as line:
        progress.Look(line, label)(run("salun"), run("stage"), step(0))
    assert terminal.getvalue() == ""


def test_no_progress_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress.Line() as line:
        progress.Look(line, label)(run("salun"), run("stage"), step(0))
        time.sleep(0.05)
    assert capsys.readouterr() == ("", "")


@pytest.mark.alone
def test_a_step_that_is_not_looked_at_costs_next_to_nothing(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 60.0)
    steps, one = 100_000, step(0)
    with progress.Line() as line:
        look = progress.Look(line, label)
        look(run("a"), run("stage"), one)
        began = time.perf_counter()
        for _ in range(steps):
            look(None, None, one)  # type: ignore[arg-type]
        assert (time.perf_counter() - began) / steps < 2e-6
