"""The logic of the bench: what is counted, what is compared, and that it notices when the two sides differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oblivio.bench import bare, descents, footprint, passes, speed, timing
from oblivio.bench.images import Images, images
from oblivio.bench.memory import peak
from oblivio.bench.row import Row, table
from oblivio.core.descent import Descent
from oblivio.core.importance import fisher
from oblivio.core.opt import Opt, adam, sgd
from oblivio.core.plan import keep
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.terms import fit

KiB = 1024


@pytest.fixture
def rows() -> Images:
    return Images(torch.rand(96, 1, 8, 8), torch.arange(96) % 4)


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 4))


def case(net: nn.Module, rows: Images, loss: Callable[[Images, str], bare.Loss]) -> descents.Case:
    problem = Problem(net, task="classification", train=(rows.x, rows.y))
    return descents.Case(problem, fit("train"), lambda: loss(rows, "train"), batch=40)


# --- rows


def test_a_row_passes_by_its_median() -> None:
    assert Row("a", 1.1, [1.0, 1.0, 9.0]).passed
    assert not Row("a", 1.1, [1.0, 1.2, 1.3]).passed
    assert not Row("a", 1.1, [float("nan")]).passed
    assert Row("a", 2, [3.0], unit="lines").to_json() == {
        "name": "a", "value": 3.0, "unit": "lines", "limit": 2, "pass": False, "repeats": [3.0], "noise": [],
        "note": "",
    }  # fmt: skip
    assert table([Row("a", 1.1, [1.0, 1.2], noise=[1.0])]).row_count == 1


@pytest.mark.parametrize(("value", "code"), [(1.0, 0), (3.0, 1)])
def test_one_row_over_its_limit_fails_the_bench(
    value: float, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(speed, "BENCHES", {"one": lambda: Row("one", 2, [value]), "more": lambda: [Row("two", 2, [1])]})
    assert speed.main(tmp_path / "speed.json") == code
    record = json.loads((tmp_path / "speed.json").read_text())
    assert [(row["name"], row["pass"]) for row in record["rows"]] == [("one", code == 0), ("two", True)]
    assert record["threads"] == 1
    assert speed.main(only=("more",)) == 0


# --- timing


def test_the_fastest_turn_of_every_repeat_counts() -> None:
    assert timing.fastest([3, 1, 2, 5, 4, 6], 3) == [1, 4]
    assert timing.ratios([2, 3], [1, 2]) == [2, 1.5]
    calls: list[str] = []
    times = timing.by_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2, blocks=2)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab" + "ba"
    assert [len(values) for values in times.values()] == [2, 2]


# --- a Descent and a bare loop


def test_a_descent_ends_where_the_bare_loop_ends(net: nn.Module, rows: Images) -> None:
    times, far = case(net, rows, descents._cross_entropy).compare(block=2, repeats=1)
    assert times.keys() == {"descent", "contiguous", "channels_last", "again"}
    assert far < 1e-6


def test_a_bare_loop_of_another_loss_is_noticed(net: nn.Module, rows: Images) -> None:
    def other(images: Images, source: str) -> bare.Loss:
        loss = descents._cross_entropy(images, source)
        return lambda net, batch: 1.1 * loss(net, batch)

    with pytest.raises(AssertionError, match="apart"):
        case(net, rows, other).compare(block=2, repeats=1)


@pytest.mark.parametrize("opt", [sgd(0.1, 0.9), adam(0.01)], ids=repr)
@pytest.mark.parametrize("whole", [False, True])
def test_the_memory_format_of_the_weights_is_without_effect(
    opt: Opt, whole: bool, net: nn.Module, rows: Images, tmp_path: Path
) -> None:
    """A fused optimiser walks gradient and moments as they lie in memory, and does not ask whether they lie alike."""

    @term(whole=True)
    def pull(step: Step, on: On) -> Tensor:
        return torch.stack([w.sum() for w in step.weights.values()]).sum()

    @term
    def near(step: Step, on: On) -> Tensor:
        return (step.out(on) - step.out(on, at="before")).square().sum(1)

    def trained(model: nn.Module, folder: Path | None = None) -> Problem:
        loss = fit("train") + near("train")
        plan = keep("before") >> Descent(loss + 0.1 * pull("train") if whole else loss, opt=opt, steps=6, batch=40)
        watch = [stop] if folder else []
        problem = Problem(model, task="classification", train=(rows.x, rows.y))
        try:
            return Run(plan, problem, folder, every=0, watch=watch).go()
        except KeyboardInterrupt:
            return Run(plan, Problem(model, train=(rows.x, rows.y)), folder).resume().go()

    def stop(run: Run, stage: object, step: Step) -> None:
        if step.t == 3:
            raise KeyboardInterrupt

    plain, other = trained(bare.in_format(net, "contiguous")), trained(bare.in_format(net, "channels_last"))
    assert bare.apart(plain.model, other.model, net) < 1e-3
    resumed = trained(bare.in_format(net, "channels_last"), tmp_path)
    assert bare.apart(resumed.model, other.model, net) == 0
    for name, weight in resumed.weights().items():
        assert resumed.snapshots["before"][name].stride() == weight.stride()


# --- passes


def test_the_fisher_of_the_bench_is_checked_row_by_row(
    net: nn.Module, rows: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(net, task="classification", train=(rows.x, rows.y))
    passes.exact(problem, rows)
    monkeypatch.setattr(passes, "fisher", lambda problem, on: {n: 1.01 * f for n, f in fisher(problem, on).items()})
    with pytest.raises(AssertionError, match="not exact"):
        passes.exact(problem, rows)


# --- what is counted


def test_live_tensors_are_counted_by_storage() -> None:
    def work() -> None:
        a = torch.zeros(KiB // 4)  # 1 KiB
        b = a[:10].view(2, 5)  # a view costs nothing
        c = torch.zeros(KiB)  # 4 KiB, 5 in all
        del a, c
        torch.zeros(KiB // 2)  # 2 KiB beside the 1 that the view still holds
        del b
        torch.zeros(KiB)

    assert peak(work) == 5 * KiB
    assert peak(work, held=[torch.zeros(KiB)]) == 9 * KiB


def test_what_a_graph_and_a_gradient_hold_is_counted() -> None:
    w = torch.zeros(KiB, requires_grad=True)

    def work() -> None:
        w.sin().sin().sum().backward()

    assert peak(work, held=[w]) > 4 * 4 * KiB  # weight, two saved inputs or results, gradient
    w.grad = None


def test_a_method_with_cached_outputs_needs_little_more_than_fine_tuning() -> None:
    assert 0.9 < footprint.memory(width=256, depth=4).value < 1.25


def test_docstrings_are_no_lines_of_a_method() -> None:
    text = '"""One.\n\nTwo.\n"""\n\n\ndef f():\n    """Three."""\n    return 1\n'
    assert footprint.without_docstrings(text) == 4
    assert [row.name for row in footprint.lines()] == ["lines of core", "lines of a method's file"]


def test_without_data_the_images_are_random_and_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OBLIVIO_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = images("mnist", 10)
    assert found.x.shape == (10, 1, 28, 28)
    assert "random" in found.note
