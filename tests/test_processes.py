"""Two processes are one job: the same weights, every row once, and no silent lack of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oblivio.audits.report import Report
from oblivio.core.errors import BadInput
from oblivio.core.team import ALONE, gather

JOB = '''
"""Each plan by the team and, in the same process, alone; the first process writes how far apart they end."""
import json, sys
import torch
from torch import nn
from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam, sgd
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.team import ALONE, gather
from oblivio.core.term import term

torch.set_num_threads(1)
team = gather(2)
try:
    gather(3)
    fewer = "accepted"
except BadInput as error:
    fewer = str(error)
g = torch.Generator().manual_seed(0)
forget, retain = ((torch.randn(n, 6, generator=g), torch.randint(4, (n,), generator=g)) for n in (12, 33))
FIT, KEEP = terms.fit("forget"), terms.fit("retain")
seen = []


@term
def recorded(step, on):
    if step.team.size > 1:
        seen.append(step.batch(on)["row"].tolist())
    return step.task.each(step.out(on), step.batch(on))


@term(whole=True)
def penalty(step, of):
    return sum(g.square().sum() for g in step.grad(of, graph=True).values())


@term
def l2(step):
    return torch.stack([w.square().sum() for w in step.weights.values()]).sum()


def descent(loss, **settings):
    return Descent(loss, **{"opt": sgd(0.05, 0.9), "steps": 20, "batch": 16, **settings})


plans = {
    "plain, 200 steps": descent(KEEP - 0.1 * FIT + 1e-3 * l2(), steps=200),
    "references and random labels": descent(terms.npo("forget") + terms.relabel("forget") + KEEP, opt=adam(0.01)),
    "chunks": descent(KEEP + FIT, chunk=3),
    "a rule": descent(terms.sam(KEEP) + FIT),
    "a term that relates rows": descent(KEEP + 0.1 * penalty(FIT) + FIT.weighted(terms.memorised())),
}


def end(plan, team):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    problem = Problem(net, forget=forget, retain=retain, team=team)
    Run(plan, problem).go()
    return torch.cat([w.detach().flatten() for w in problem.weights().values()])


def apart(plan):
    """From one process, and from the other process."""
    mine, alone = end(plan, team), end(plan, ALONE)
    first = mine.clone()
    torch.distributed.broadcast(first, 0)
    return [float((mine - alone).abs().max()), float((mine - first).abs().max())]


result = {name: apart(plan) for name, plan in plans.items()}
end(descent(recorded("retain"), steps=None, epochs=1), team)  # 33 rows: 16, 16 and 1
everyone = [None, None]
torch.distributed.all_gather_object(everyone, [team.rank, team.size, seen, result])
if team.rank == 0:
    with open(sys.argv[1], "w") as file:
        json.dump({"fewer": fewer, "processes": everyone}, file)
team.wait()
'''


def launched(folder: Path, *words: str) -> str:
    """What two processes on this machine that run these words complain of."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=folder
    ) as job:
        try:
            return job.communicate(timeout=240)[1]
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)  # the launcher and both processes
            raise


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What two processes on this machine write down."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "job.py").write_text(JOB)
    words = launched(folder, "job.py", "out.json")
    written = folder / "out.json"  # the last thing that is done; how torch then takes itself apart is not looked at
    assert written.exists(), words[-3000:]
    return json.loads(written.read_text())


def test_a_job_of_two_ends_in_one_report(tmp_path: Path) -> None:
    """What the first trains for its audit must not wait for the other."""
    fields = {
        "data": "breast_cancer", "model": {"name": "mlp", "options": {"hidden": [4]}}, "recipe": {"epochs": 0.5},
        "forget": "random=0.1", "references": 1, "method": {"name": "finetune", "settings": {"epochs": 0.5}},
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(json.dumps(fields))
    words = launched(tmp_path, "-m", "oblivio", "forget", "job.yaml", "--out", "out")
    assert (tmp_path / "out" / "report.json").exists(), words[-3000:]
    figures = {figure["id"]: figure["state"] for figure in Report.load(tmp_path / "out")["figures"]}
    assert figures["relearning"] == "figure"


def test_there_are_two(told: dict) -> None:
    assert [(rank, size) for rank, size, *_ in told["processes"]] == [(0, 2), (1, 2)]


def test_they_end_where_one_process_ends(told: dict) -> None:
    for *_, apart in told["processes"]:
        assert {name: value for name, value in apart.items() if max(value) > 1e-4} == {}
        assert len(apart) == 5


def test_no_row_is_lost_or_doubled(told: dict) -> None:
    first, second = (batches for _, _, batches, _ in told["processes"])
    assert [len(a) + len(b) for a, b in zip(first, second, strict=True)] == [16, 16, 1]
    assert sorted(row for batch in first + second for row in batch) == list(range(33))


def test_fewer_processes_than_asked_for_is_an_error(told: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told["fewer"].startswith("3 processes were asked for and 2 started; run torchrun --nproc-per-node 3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(BadInput, match="2 processes were asked for and 1 started"):
        gather(2)
    assert gather() is gather(1) is ALONE
