"""Kept models: what is a hit, what is a miss, and that no model is trained twice at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oblivio import artefact
from oblivio.core.errors import BadInput
from oblivio.core.source import Source
from oblivio.core.team import ALONE
from oblivio.jobs import cache, training
from oblivio.jobs.network import Network
from oblivio.jobs.recipe import Recipe
from oblivio.networks import Architecture
from oblivio.sources import Items, Tensors

X, Y = torch.arange(40.0).view(20, 2) / 40, torch.arange(20) % 2
RECIPE = Recipe(epochs=1, batch=8)
NETWORK = Network(Architecture("mlp", (2,), 2, {"hidden": [3]}))


def rows(**changes: Any) -> Source:
    return Tensors({"x": X, "y": Y, **changes}, ids=range(20))


def parts(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"recipe": RECIPE, "network": NETWORK, "source": rows(), "seed": 0}
    return cache.parts(**{**given, **changes}, task=changes.get("task", "classification"))


def wide() -> Network:
    return Network(Architecture("mlp", (2,), 2, {"hidden": [4]}))


CHANGES: dict[str, Callable[[], dict[str, Any]]] = {
    "a byte of the data": lambda: {"source": rows(x=X.clone().index_put_((torch.tensor(3),), torch.tensor(0.1)))},
    "a label": lambda: {"source": rows(y=1 - Y)},
    "an id": lambda: {"source": Tensors({"x": X, "y": Y}, ids=range(1, 21))},
    "the split": lambda: {"source": rows().take(range(19))},
    "the order": lambda: {"source": rows().take([1, 0, *range(2, 20)])},
    "a setting of the recipe": lambda: {"recipe": RECIPE.but(lr=0.06)},
    "the network": lambda: {"network": wide()},
    "the seed": lambda: {"seed": 1},
    "the precision": lambda: {"team": replace(ALONE, precision="bf16")},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_anything_is_a_miss(change: str) -> None:
    assert cache.key(parts()) == cache.key(parts())
    assert cache.key(parts(**CHANGES[change]())) != cache.key(parts())


def test_another_task_is_a_miss() -> None:
    given = (RECIPE, NETWORK, rows(), 0)
    assert cache.key(cache.parts(*given, task="binary")) != cache.key(cache.parts(*given, task="classification"))


def test_other_threads_versions_or_machines_are_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {cache.key(parts())}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    before |= {cache.key(parts())}
    monkeypatch.setattr(torch, "__version__", "3.0")
    before |= {cache.key(parts())}
    monkeypatch.setattr("platform.machine", lambda: "abacus")
    assert len(before | {cache.key(parts())}) == 4


def test_another_text_of_what_trains_or_of_what_that_imports_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core").mkdir()
    files = {name: tmp_path / name for name in ("b.py", "core/a.py", "core/aside.py")}
    start = "def f():\n    from oblivio.core.a import thing\n"
    texts = {"b.py": start, "core/a.py": "x = 1", "core/aside.py": "x = 1"}
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)

    def key(**changed: str) -> str:
        for name, file in files.items():
            file.write_text({**texts, **changed}[name])
        return cache.code(["b.py"])

    before = key()
    assert key(**{"core/a.py": "x = 2"}) != before
    assert key(**{"b.py": start + "y = 1"}) != before
    assert key(**{"core/aside.py": "x = 2"}) == before


def test_the_code_of_a_model_holds_its_network_its_task_and_the_engine() -> None:
    starts = cache._trainers(NETWORK.architecture.name, "classification")
    files: set[str] = set()
    new = set(starts)
    while new:
        files |= new
        texts = [(cache.PACKAGE / name).read_text() for name in new]
        found = {file for text in texts for name in cache._imported(text) for file in cache._files(name)}
        new = {str(file.relative_to(cache.PACKAGE)) for file in found} - files
    for needed in ("core/descent.py", "core/run.py", "networks/mlp.py", "tasks/classification.py", "terms/fit.py",
                   "sources/tensors.py", "modules/preprocess.py"):  # fmt: skip
        assert needed in files
    assert not any(name.startswith(("audits/", "methods/", "terms/npo")) for name in files)


def test_every_trainer_is_there() -> None:
    assert [name for name in cache.TRAINERS if not (cache.PACKAGE / name).exists()] == []


def test_another_text_of_the_users_module_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cachedcode.py"
    monkeypatch.syspath_prepend(tmp_path)
    file.write_text("def train(source, seed, folder): ...")
    first = cache.key(parts(recipe=Recipe(train="cachedcode:train")))
    file.write_text("def train(source, seed, folder): pass")
    assert cache.key(parts(recipe=Recipe(train="cachedcode:train"))) != first


def test_rows_drawn_anew_at_each_reading_are_refused() -> None:
    data = [(x, int(y)) for x, y in zip(X, Y, strict=True)]
    with pytest.raises(BadInput, match="draws anew"):
        cache.digest(Items(data, random=True))  # type: ignore[arg-type]
    assert cache.digest(Items(data, ids=range(20))) == cache.digest(rows())  # type: ignore[arg-type]


# --- hits


def made() -> training.Trained:
    return cache.trained(RECIPE, NETWORK, rows(), 0, task="classification")


def test_a_model_of_another_version_is_not_used_and_said_to_be_so(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made()
    assert [entry.current for entry in cache.entries()] == [True]
    monkeypatch.setattr(cache, "_hash", lambda texts: "another")
    assert [entry.current for entry in cache.entries()] == [False]
    monkeypatch.undo()
    monkeypatch.setenv("OBLIVIO_CACHE", str(own_cache))
    monkeypatch.setattr(torch, "__version__", "3.0")
    assert [entry.current for entry in cache.entries()] == [False]


def test_a_kept_model_has_the_same_bits_and_is_not_trained_again(own_cache: Path, monkeypatch: Any) -> None:
    first = made()
    monkeypatch.setattr(cache, "train", None)
    second = made()
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))
    assert (second.seconds, second.rows) == (first.seconds, 20)


def test_two_that_need_the_same_model_train_it_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings, train = [], cache.train

    def slow(*args: Any, **kwargs: Any) -> Any:
        trainings.append(1)
        return train(*args, **kwargs)

    monkeypatch.setattr(cache, "train", slow)
    both = [threading.Thread(target=made) for _ in range(2)]
    [t.start() for t in both]
    [t.join() for t in both]
    assert len(trainings) == 1


def test_a_killed_training_goes_on(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.train(RECIPE, NETWORK, rows(), 0, task="classification").module
    clock = iter(range(0, 10**6, 31))
    monkeypatch.setattr("oblivio.core.run.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    seen: list[int] = []

    def kill(run: Any, *_: Any) -> None:
        seen.append(run.steps)
        if seen == [1, 2]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.trained(RECIPE, NETWORK, rows(), 0, task="classification", watch=[kill])
    assert [entry.finished for entry in cache.entries()] == [False]
    module = cache.trained(RECIPE, NETWORK, rows(), 0, task="classification", watch=[kill]).module
    assert seen == [1, 2, 2, 3]
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), whole.parameters(), strict=True))


# --- looking after it


def test_entries_and_clear(own_cache: Path) -> None:
    assert cache.entries() == []
    made()
    cache.trained(RECIPE, NETWORK, rows(), 1, task="classification")
    found = cache.entries()
    assert [entry.network for entry in found] == ["mlp", "mlp"]
    assert all(entry.finished and entry.bytes > 0 for entry in found)
    assert cache.clear([found[0].key]) == 1
    assert cache.entries() == found[1:]
    assert cache.clear() == 1
    assert cache.entries() == []


def test_a_model_that_is_being_trained_is_not_cleared(own_cache: Path) -> None:
    made()
    folder = cache.root() / cache.entries()[0].key
    with cache.FileLock(f"{folder}.lock"):
        assert cache.clear() == 0
    assert json.loads((folder / artefact.META).read_text())["task"] == "classification"
