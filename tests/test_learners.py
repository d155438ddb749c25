"""What every exact learner must hold to, whatever it is: any order of requests, refusals, folders, kills."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import rows
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.files import read_json
from oblivio.learners import registry
from oblivio.learners.ridge import Ridge
from oblivio.learners.shards import Sharded

N = 24
X, Y = rows(N, 6)
IDS = np.arange(N) * 7 + 3
SMALL: dict[str, dict[str, Any]] = {
    "ridge": {},
    "acu": {"expand": 8},
    "sisa": {"shards": 2, "slices": 2, "epochs": 1.5, "batch": 8},
    "s3t": {"shards": 2, "slices": 2, "budget": 2, "epochs": 1, "batch": 8, "layers": ("0", "2")},
}  # fmt: skip


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 4))


def make(name: str, **more: Any) -> Any:
    build = registry.get(name)(**SMALL[name])
    if issubclass(build.func if hasattr(build, "func") else Sharded, Ridge):
        return build(nn.Flatten(), **more)
    return build(net(), workers=1, **more)


def some(places: Any) -> tuple[Tensor, Tensor, Any]:
    at = np.asarray(places, dtype=int)
    return X[at], Y[at], IDS[at]


def forget(learner: Any, places: Any) -> Any:
    """With the rows for those that keep none."""
    given = (some(places),) if isinstance(learner, Ridge) and not learner.keep else ()
    return learner.forget(IDS[np.asarray(places, dtype=int)], *given)


def check_as_trained_anew(name: str, learner: Any, places: list[int]) -> None:
    """Ridge to 1e-8; shards bit for bit: all of them, or the stages that are left."""
    anew = make(name)
    anew.learn(some(places))
    assert sorted(learner.ids) == sorted(anew.ids)
    if isinstance(learner, Ridge):
        assert float((learner.weights - anew.weights).abs().max()) < 1e-8
        return
    if learner.retraining == "affected":
        assert learner.served == anew.served
        assert torch.equal(learner.predict(X), anew.predict(X))
    for at in learner.served:
        for a, b in zip(learner.model(*at).parameters(), anew.model(*at).parameters(), strict=True):
            assert torch.equal(a, b)


def test_every_learner_is_tested_here() -> None:
    exact = {name for name in registry.names if registry.spec(name).guarantee == "exact"}
    assert exact == set(SMALL)
    for name in exact:
        assert registry.spec(name).kind == "learner"
        assert make(name).guarantee == "exact"


def test_learners_are_listed_without_importing_torch() -> None:
    code = "import sys; from oblivio.learners import registry; registry.spec('sisa'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert registry.spec("sisa").settings["shards"].default == 5
    with pytest.raises(BadInput, match="did you mean 'sisa'"):
        registry.get("sisaa")


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_order_of_requests_gives_what_training_on_the_rest_gives(name: str, data: st.DataObject) -> None:
    learner, known = make(name), set[int]()
    for _ in range(data.draw(st.integers(1, 4))):
        if not known or (len(known) < N and data.draw(st.booleans())):
            new = data.draw(st.lists(st.sampled_from(sorted(set(range(N)) - known)), min_size=1, unique=True))
            learner.learn(some(new))
            known |= set(new)
        else:
            gone = data.draw(st.lists(st.sampled_from(sorted(known)), min_size=1, unique=True))
            forget(learner, gone)
            known -= set(gone)
    if known:
        check_as_trained_anew(name, learner, data.draw(st.permutations(sorted(known))))
    else:
        assert learner.ids == []
        with pytest.raises(BadInput, match="learn"):
            learner.predict(X)


@pytest.mark.parametrize("name", SMALL)
def test_what_cannot_be_served_is_refused_before_anything_changes(name: str) -> None:
    learner = make(name)
    with pytest.raises(BadInput, match="learn"):
        learner.predict(X)
    learner.learn(some(range(16)))
    out = learner.predict(X)
    for ids, words in (
        ([3, 3 + 7 * 20, 3 + 7 * 21], "2 were never learned, first .143, 150."),
        ([3, 10, 3], "1 come more than once, first .3."),
        ([], "there are none"),
        ("3", "no list of ids"),
    ):
        with pytest.raises(BadInput, match=words):
            learner.forget(ids)
    with pytest.raises(BadInput, match="1 ids are learned already, first .108."):
        learner.learn(some([20, 15]))
    with pytest.raises(BadInput, match="there are none"):
        learner.learn(some([]))
    with pytest.raises(BadInput):
        learner.learn((torch.zeros(2, 9), torch.zeros(2, dtype=torch.long), [1000, 1001]))
    assert sorted(learner.ids) == IDS[:16].tolist()
    assert torch.equal(learner.predict(X), out)
    forget(learner, [3])
    with pytest.raises(BadInput, match="never learned"):
        forget(learner, [3])


@pytest.mark.parametrize("name", SMALL)
def test_receipts_say_what_was_done(name: str) -> None:
    learner = make(name)
    learnt = learner.learn(some(range(N)))
    assert list(learnt.learned) == IDS.tolist()
    receipt = forget(learner, [2, 5])
    assert list(receipt.removed) == [17, 38]
    assert receipt.guarantee == "exact"
    assert receipt.seconds > 0
    assert learner.predict(X).shape == (N, 4)


@pytest.mark.parametrize("name", SMALL)
def test_saved_and_loaded_it_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    learner = make(name)
    learner.learn(some(range(20)))
    forget(learner, [1])
    learner.save(tmp_path / "a")
    again = make(name).load(tmp_path / "a")
    for each in (learner, again):
        forget(each, [4, 5])
        each.learn(some([1, 22]))
    assert torch.equal(learner.predict(X), again.predict(X))
    assert sorted(learner.ids) == sorted(again.ids)
    assert torch.equal(make(name).load(tmp_path / "a").predict(X), again.predict(X))  # it was kept up
    with pytest.raises(BadInput, match="holds a learner already"):
        learner.save(tmp_path / "a")
    with pytest.raises(BadInput, match="holds no learner"):
        make(name).load(tmp_path / "b")
    with pytest.raises(BadInput, match=r"was made with seed = 0; this learner has 1"):
        make(name, seed=1).load(tmp_path / "a")


# --- kills


class Killed(BaseException):
    """The end of a process: nothing handles it, and no file operation works afterwards."""


@contextmanager
def dying(at: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """File operation ``at`` and all later ones raise; the list holds those that were asked for."""
    seen: list[str] = []

    def counted(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            seen.append(kind)
            if len(seen) > at:
                raise Killed
            return None if kind == "fsync" else call(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for owner, name in ((os, "fsync"), (os, "replace"), (Path, "unlink"), (Path, "mkdir")):
            patch.setattr(owner, name, counted(name, getattr(owner, name)))
        with suppress(Killed):
            yield seen


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "files").iterdir())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("request_", ["forget", "learn"])
def test_a_kill_between_any_two_writes_loses_nothing(
    name: str, request_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(name, folder=tmp_path / "start")
    first.learn(some(range(20)))
    do = (lambda each: forget(each, [4])) if request_ == "forget" else (lambda each: each.learn(some([21])))
    shutil.copytree(tmp_path / "start", tmp_path / "whole")
    whole = make(name).load(tmp_path / "whole")
    with dying(10**6, monkeypatch) as seen:
        do(whole)
    assert "replace" in seen
    assert "unlink" in seen
    outcomes = set()
    for at in range(len(seen)):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "start", folder)
        with dying(at, monkeypatch):
            do(make(name).load(folder))
        again = make(name).load(folder)
        done = sorted(again.ids) == sorted(whole.ids)
        outcomes.add(done)
        assert done or sorted(again.ids) == sorted(first.ids)
        if done:
            assert set(files(folder)) <= {*files(tmp_path / "whole"), *(n for n in files(folder) if n[0] == ".")}
        else:
            do(again)
        assert torch.equal(again.predict(X), whole.predict(X)), f"killed at operation {at}, {seen[at]}"
        assert set(read_json(folder / "learner.json")["files"]) == {n.removesuffix(".safetensors") for n in files(tmp_path / "whole")}  # fmt: skip  # noqa: E501
    assert outcomes == {True, False}
