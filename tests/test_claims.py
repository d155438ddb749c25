"""The runner tells claims that hold from those that do not, and refuses those that say nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from oblivio.claims import page, records, runner
from oblivio.claims.claim import Claim, Figures, Method, Rejected, judge
from oblivio.claims.condition import Condition
from oblivio.claims.problems import nothing
from oblivio.claims.records import Record
from oblivio.core.errors import BadInput
from oblivio.core.plan import Plan, Stage

NAMES = runner.names()
RECORDED = [name for name, record in runner.table().items() if record is not None]
every_claim = pytest.mark.parametrize("name", NAMES)
every_record = pytest.mark.parametrize("name", RECORDED)


def works(**_: Any) -> Stage:
    return Plan([])


def measure(method: Method, seed: int) -> Figures:
    """A method that works halves what was 0.8."""
    return {"before": 0.8, "after": (0.4 if method is works else 0.8) + seed / 100}


def toy(**changes: Any) -> Claim:
    given: dict[str, Any] = {
        "says": "it falls", "trained": "nothing", "method": works, "controls": {"a no-op": nothing},
        "measure": measure, "holds": ("after <= before - 0.2",), "tolerance": 0.05,
    }  # fmt: skip
    return Claim(**given | changes)


@pytest.fixture
def only_toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A world in which there is one claim, and its records are here."""
    monkeypatch.setattr(runner, "names", lambda: ["toy"])
    monkeypatch.setattr(runner, "load", lambda name: toy())
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    return tmp_path


# --- conditions


@pytest.mark.parametrize(
    ("text", "figures", "met"),
    [
        ("a < b", {"a": 1, "b": 2}, True),
        ("a < b", {"a": 2, "b": 2}, False),
        ("a <= b - 0.5", {"a": 1.6, "b": 2}, False),
        ("0 <= a <= b", {"a": 1, "b": 0.5}, False),
        ("abs(a - b) <= 0.1", {"a": 1, "b": 1.05}, True),
        ("max(a, b) > min(a, b) * 2 / 1", {"a": 1, "b": 3}, True),
        ("a == -1", {"a": -1}, True),
        ("count(a <= 1, b <= 1, c <= 1) >= 2", {"a": 1, "b": 2, "c": 0}, True),
        ("count(a <= 1, b <= 1, c <= 1) >= 2", {"a": 1, "b": 2, "c": 3}, False),
        ("a <= 1", {"a": float("nan")}, False),
    ],
)
def test_a_condition_is_met_or_not(text: str, figures: Mapping[str, float], met: bool) -> None:
    assert Condition(text).met(figures) is met


NONSENSE = "a|1 < 2|a +|a.b < 1|a < 'b'|open(a) < 1|a[0] < 1|a < b if c else d|a ** 2 < 1|a != 1|lambda: a < 1"


@pytest.mark.parametrize("text", ["", *NONSENSE.split("|")])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Condition(text)


# --- claims


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"holds": ()}, "asserts nothing"),
        ({"holds": ("1 <= 2",)}, "names no figure"),
        ({"holds": ("after",)}, "compares nothing"),
        ({"controls": {}}, "no control"),
        ({"because": {"after <= 0": "it is so"}}, "no condition of the claim"),
    ],
)
def test_a_claim_that_says_nothing_is_rejected(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Rejected, match=complaint):
        toy(**changes)


def test_what_holds_on_average_and_in_every_seed_are_two_things() -> None:
    figures = {"a": [0.0, 1.0], "b": [0.8, 0.8]}
    assert judge(toy(holds=("a <= b",)), figures).verdict == "holds"
    failed = judge(toy(holds=(), always=("a <= b",)), figures)
    assert (failed.verdict, failed.failed) == ("fails", [("a <= b", "1 <= 0.8")])


def test_a_reason_has_the_numbers_and_explains_only_what_failed() -> None:
    claim = toy(holds=("a <= b", "a <= c"), because={"a <= b": "b is low", "a <= c": "c is low"})
    reason = judge(claim, {"a": [0.5], "b": [0.25], "c": [0.75]}).reason
    assert reason == "failed: a <= b (0.5 <= 0.25); held: a <= c (0.5 <= 0.75). b is low"


def test_a_condition_on_what_was_not_measured_is_rejected_but_in_a_look() -> None:
    claim = toy(holds=("after <= before", "other <= before"))
    figures = {"after": [0.0], "before": [1.0]}
    with pytest.raises(Rejected, match="other"):
        judge(claim, figures)
    assert judge(claim, figures, partly=True).held == [("after <= before", "0 <= 1")]


# --- the runner


def test_a_claim_leaves_a_record_of_exactly_these_keys(only_toy: Path) -> None:
    (made,) = runner.run(["toy"])
    written = json.loads((only_toy / "toy.json").read_text())
    assert set(written) == {
        "id", "verdict", "seeds", "figures", "control", "reason", "command", "seconds", "commit", "versions", "machine",
    }  # fmt: skip
    assert written == json.loads(json.dumps(asdict(made)))
    assert (written["verdict"], written["seeds"]) == ("holds", [0, 1, 2])
    assert written["figures"] == {"before": [0.8, 0.8, 0.8], "after": [0.4, 0.41, 0.42]}
    assert written["control"]["a no-op"]["verdict"] == "fails"
    assert runner.table() == {"toy": records.read("toy")}


def test_a_claim_that_fails_is_recorded_as_failing(only_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "load", lambda name: toy(method=nothing))
    (made,) = runner.run(["toy"])
    assert made.verdict == "fails"
    assert made.reason.startswith("failed: after <= before - 0.2 (0.81 <= 0.8 - 0.2)")
    assert records.path("toy").exists()


def test_a_claim_that_holds_of_its_control_leaves_no_record(only_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "load", lambda name: toy(holds=("after <= before + 1",)))
    with pytest.raises(Rejected, match="holds of its control too"):
        runner.run(["toy"])
    assert list(only_toy.iterdir()) == []


def test_a_look_takes_one_seed_in_its_cheapest_form_and_writes_nothing(
    only_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cheap(method: Method, seed: int) -> Figures:
        return {"after": 0.1}

    (seen,) = runner.run(fast=True)
    monkeypatch.setattr(runner, "load", lambda name: toy(fast=cheap))
    (less,) = runner.run(fast=True)
    assert (seen.verdict, seen.seeds, seen.figures) == (None, [0], {"before": [0.8], "after": [0.4]})
    assert less.figures == {"after": [0.1]}
    assert list(only_toy.iterdir()) == []


def test_a_record_is_of_the_commit_it_was_begun_on(only_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["one", "one", "one", "two", "two+changes", "two+changes"])
    monkeypatch.setattr(records, "commit", lambda: next(commits))
    assert [runner.run(fast=True)[0].commit for _ in range(3)] == ["one", "one+changes", "two+changes"]


def test_each_record_is_reported_when_it_is_there(only_toy: Path) -> None:
    told: list[Record] = []
    assert runner.run(["toy"], report=told.append) == told


def test_too_few_seeds_and_unknown_claims_are_refused() -> None:
    with pytest.raises(BadInput, match="at least 3"):
        runner.run(["salun"], seeds=2)
    with pytest.raises(BadInput, match="did you mean 'salun'"):
        runner.run(["salnu"])


def test_names_and_table_import_no_torch() -> None:
    code = (
        "import sys; from oblivio.claims.runner import names, table; names(), table(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- verifying


@pytest.fixture
def recorded(only_toy: Path) -> Record:
    return runner.run(["toy"])[0]


def test_a_claim_that_is_as_recorded_is_verified(recorded: Record) -> None:
    assert runner.verify("toy") == []
    assert runner.verify("toy", fast=True) == []


@pytest.mark.parametrize(("shift", "apart"), [(0.04, False), (0.06, True), (float("nan"), True)])
def test_a_figure_beyond_the_tolerance_is_told(
    recorded: Record, monkeypatch: pytest.MonkeyPatch, shift: float, apart: bool
) -> None:
    def shifted(method: Method, seed: int) -> Figures:
        return {**measure(method, seed), "before": 0.8 + shift * (seed == 0)}

    monkeypatch.setattr(runner, "load", lambda name: toy(measure=shifted))
    told = runner.verify("toy", fast=True)
    assert bool(told) is apart
    assert all("before of seed 0" in words for words in told)


def test_another_verdict_control_or_set_of_figures_is_told(recorded: Record) -> None:
    control = {"a no-op": {"figures": {"after": [0.0, 0.0, 0.0]}}}
    other = replace(recorded, verdict="fails", figures={"after": [0.4, 0.41, 0.42], "new": [1, 1, 1]}, control=control)
    told = " ".join(runner.differences(recorded, other, 0.05))
    assert all(words in told for words in ("it fails now", "new of seed 0 is not recorded", "control, a no-op: after"))
    assert "before is recorded and no longer measured" in told


def test_what_cannot_be_verified_is_refused(only_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="no record yet"):
        runner.verify("toy")
    runner.run(["toy"])
    monkeypatch.setattr(runner, "load", lambda name: toy(fast=measure))
    with pytest.raises(BadInput, match="other figures"):
        runner.verify("toy", fast=True)


def test_a_tenth_is_chosen_by_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = runner.cheap()
    monkeypatch.setattr(runner, "cheap", lambda: cheap)  # it reads every record
    chosen = {commit: runner.tenth(commit) for commit in map(str, range(40))}
    assert runner.tenth("7") == chosen["7"]
    assert len(cheap) > len(runner.names()) // 3
    assert {len(names) for names in chosen.values()} == {len(cheap) // 10}
    assert len({names[0] for names in chosen.values()}) > 5


@pytest.mark.parametrize("name", runner.tenth(records.commit()))
def test_a_tenth_of_the_claims_is_as_recorded(name: str) -> None:
    assert runner.verify(name, fast=True) == []


# --- the claims and records there are


@every_claim
def test_a_claim_says_what_it_is(name: str) -> None:
    claim = runner.load(name)
    assert all((claim.says, claim.trained, claim.conditions, claim.controls, 0 < claim.tolerance <= 0.1))
    assert all(all(asdict(change).values()) for change in claim.changed)
    assert page.section(name, claim, None).startswith(f"## {name}\n\n{claim.says}")


@every_record
def test_a_verdict_follows_from_its_figures(name: str) -> None:
    claim, record = runner.load(name), records.read(name)
    judgement = judge(claim, record.figures)
    assert (record.id, record.verdict, record.reason) == (name, judgement.verdict, judgement.reason)
    assert record.control.keys() == claim.controls.keys()
    for found in record.control.values():
        assert (found["verdict"], found["reason"]) == ("fails", judge(claim, found["figures"]).reason)
        assert found["reason"].startswith("failed: ")


@every_record
def test_a_record_can_be_traced(name: str) -> None:
    record = records.read(name)
    assert len(record.seeds) >= runner.LEAST
    assert {len(values) for values in record.figures.values()} == {len(record.seeds)}
    assert record.command == f"oblivio claims run {name} --seeds {len(record.seeds)}"
    assert len(record.commit.removesuffix("+changes")) == 40
    assert {"oblivio", "python", "torch", "numpy"} <= record.versions.keys()
    assert record.machine.keys() == {"type", "system", "threads"}


def test_there_is_no_record_without_a_claim() -> None:
    assert {path.stem for path in records.FOLDER.glob("*.json")} <= set(NAMES)
    assert {field.name for field in fields(Record)} == set(json.loads(records.path(RECORDED[0]).read_text()))
