"""What every test stands on: one torch thread, reproducible properties, real data where there is some, own caches."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for the processes that tests start
os.environ["HF_HUB_OFFLINE"] = "1"  # before it is imported too: what is not here is not waited for

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from oblivio.claims import records, runner

CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if CI else "here")


def pytest_report_header() -> str:
    """Says which claims this commit chooses to be measured again."""
    commit = records.commit()
    return f"claims chosen by commit {commit}: {', '.join(runner.tenth(commit))}"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums have one order: the same bits whatever the machine's number of cores."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """A test that draws from torch's own generator draws the same whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """OBLIVIO_CACHE of this run, shared by its workers; a test that counts or clears the cache asks for `own_cache`."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "oblivio-cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OBLIVIO_CACHE", str(folder))
        yield folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty OBLIVIO_CACHE for one test."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("OBLIVIO_CACHE", str(folder))
    return folder


@pytest.fixture
def data_folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data, as OBLIVIO_DATA. Without one a test is skipped, but fails on CI."""
    folder = Path(os.environ.get("OBLIVIO_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        missing = f"no real data: {folder} is no folder; set OBLIVIO_DATA to one that holds fashion_mnist.npz"
        (pytest.fail if CI else pytest.skip)(missing)
    monkeypatch.setenv("OBLIVIO_DATA", str(folder))
    return folder
