"""The main job measured: every method on a class and on random rows, over seeds, against models retrained without them.

Written row by row, so that an interrupted bench goes on where it was. All methods run with their shipped defaults.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from oblivio import methods
from oblivio.audits.figures import Means, mask, means, noise, summary
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.files import read_json, write_json
from oblivio.core.problem import Problem
from oblivio.core.run import environment
from oblivio.core.team import ALONE
from oblivio.jobs import cache, serving
from oblivio.jobs.job import Job
from oblivio.jobs.method import apply, choose
from oblivio.jobs.prepare import Ready, prepare
from oblivio.jobs.references import retrained

REQUESTS = ("class=3", "random=0.05")
CLOSE = {"forget": 0.02, "kept": 0.015}  # how far from the references' mean still counts as near
CONTROLS = ("original", "output masked", "weight noise")
Row = dict[str, Any]


def main(json: Path, data: str = "fashion_mnist", model: str = "small-cnn", seeds: Sequence[int] = (0, 1, 2),
         references: int = 3, report: Callable[[str], None] = print) -> None:
    """Measure what ``json`` does not hold yet, and print the table.

    Args:
        json: the record; rows in it are kept.
        data, model: the problem; the original is trained by the shipped recipe with a tenth of the rows held out.
        seeds: of original, request, method; references have seeds of their own.
        references: how many retrained models a request and seed.
        report: gets a line for each row.
    """
    record: dict[str, Any] = read_json(json) if json.exists() else {"data": data, "model": model, "references": references, "rows": []}
    if (record["data"], record["model"], record["references"]) != (data, model, references):
        raise BadInput(f"{json} is of {record['data']} and {record['model']}; choose another file")
    done = {(r["request"], r["seed"], r["name"]) for r in record["rows"]}
    for request in REQUESTS:
        for seed in seeds:
            wanted = [n for n in names() if (request, seed, n) not in done]
            for row in _rows(request, seed, wanted, data, model, references) if wanted else ():
                record["rows"].append({"request": request, "seed": seed, **row})
                record["environment"] = environment()
                write_json(json, record)
                report(f"{request} seed {seed} {row['name']}: {row.get('refused') or row.get('means') or row['mean']}")
    report(table(record["rows"]))


def names() -> list[str]:
    """What the bench compares: the controls, then every unlearning method."""
    return ["references", *CONTROLS, *(n for n in methods.registry.names if methods.spec(n).kind == "unlearning")]


@dataclass(frozen=True)
class _Setting:
    """One request with one seed: the problem on the original, and models that never saw the rows."""

    ready: Ready
    problem: Problem
    references: list[nn.Module]
    seconds: float

    @property
    def classes(self) -> list[int]:
        return serving.forgotten_classes(self.problem)


def _setting(request: str, seed: int, data: str, model: str, references: int) -> _Setting:
    job = Job.of(data=data, model=model, forget=request, method="finetune", references=references, seed=seed)
    ready = prepare(job, ALONE)
    assert ready.network is not None
    made = cache.trained(ready.job.recipe, ready.network, ready.rows.train, seed, task=ready.dataset.task)
    others = [retrained(i, ready.job.recipe, ready.network, ready.rows.retain, seed, task=ready.dataset.task)
              for i in range(references)]
    times = [r.seconds for r in others if r.seconds]
    return _Setting(ready, ready.problem(made.module), [r.module for r in others], statistics.fmean(times))


def _rows(request: str, seed: int, wanted: Iterable[str], *problem: Any) -> Iterator[Row]:
    setting = _setting(request, seed, *problem)
    for name in wanted:
        if name == "references":
            found = [means(setting.problem, {"model": r}, setting.classes) for r in setting.references]
            yield {"name": name, **(summary(found, list(found[0])) or {}), "seconds": setting.seconds}
        elif name in CONTROLS:
            yield {"name": name, **_control(name, setting)}
        else:
            yield {"name": name, **_method(name, setting)}


def _control(name: str, setting: _Setting) -> Row:
    nets = dict(setting.problem.nets.items())
    if name == "output masked":
        if not setting.classes:
            return {"refused": "no class goes"}
        nets = dict(mask(nets, setting.classes))
    if name == "weight noise":
        moved, _ = apply(methods.registry.get("npo")(), setting.problem)
        nets = dict(noise(nets, dict(moved.nets.items()), setting.problem.seed))
    return {"means": means(setting.problem, nets, setting.classes)}


def _method(name: str, setting: _Setting) -> Row:
    chosen = choose(name, {})
    try:
        serving.check(setting.problem, chosen.spec)
        changed, seconds = apply(chosen.plan, setting.problem)
    except (BadInput, Stopped) as refusal:
        return {"refused": str(refusal)}
    figures = means(setting.problem, dict(changed.nets.items()), setting.classes)
    return {"means": figures, "seconds": seconds, "of_retraining": seconds / setting.seconds}


# --- the table


def distances(rows: Sequence[Row], request: str, name: str) -> list[tuple[float, float]]:
    """For every seed how far a model is from the mean of its references: on forgotten rows, on test rows of kept
    classes; in accuracy, positive where it is higher."""
    by = {(r["seed"], r["name"]): r for r in rows if r["request"] == request}
    found = []
    for seed in sorted({s for s, _ in by}):
        row, mean = by.get((seed, name), {}), by[seed, "references"]["mean"]
        if "means" in row:
            found.append((row["means"]["forget"] - mean["forget"], _kept(row["means"]) - _kept(mean)))
    return found


def _kept(found: Means) -> float:
    return found.get("test_kept", found.get("test", float("nan")))


def near(found: Sequence[tuple[float, float]]) -> bool:
    """Whether the mean over the seeds is within 2 points on forgotten rows and 1.5 on test rows of kept classes."""
    forget, kept = (statistics.fmean(v) for v in zip(*found, strict=True))
    return abs(forget) <= CLOSE["forget"] and abs(kept) <= CLOSE["kept"]


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line a method, for each request the distances in points (mean, and worst seed) and whether near."""
    requests = [r for r in REQUESTS if any(row["request"] == r for row in rows)]
    head = ["method", *(w for r in requests for w in (f"{r}: forgotten", "kept", "near", "time"))]
    lines = [head, ["---"] * len(head)]
    for name in [n for n in dict.fromkeys(r["name"] for r in rows) if n != "references"]:
        lines.append([name, *(w for r in requests for w in _cells(rows, r, name))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(rows: Sequence[Row], request: str, name: str) -> list[str]:
    mine = [r for r in rows if r["request"] == request and r["name"] == name]
    found = distances(rows, request, name)
    if not found:
        return ["refused" if mine else "", "", "", ""]
    cells = [f"{100 * statistics.fmean(v):+.1f} ({100 * max(v, key=abs):+.1f})" for v in zip(*found, strict=True)]
    shares = [r["of_retraining"] for r in mine if "of_retraining" in r]
    return [*cells, "yes" if near(found) else "no", f"{100 * statistics.fmean(shares):.0f}%" if shares else ""]
