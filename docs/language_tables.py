"""Tables of records on language models: requests in turn, and TOFU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from tables import table

from oblivio.audits.report import Report
from oblivio.audits.verdict import named

RESULTS = Path(__file__).parent.parent / "results" / "language"
FIGURES = {
    "forget": "probability", "rouge": "ROUGE-L", "extraction": "extraction strength", "truth_distance": "KS distance",
    "forget_quality": "forget quality (p)", "min_k": "Min-K AUC", "retain": "probability, retained",
    "kept": "world facts", "utility": "utility",
}  # fmt: skip


def in_turn() -> str:
    """A line a method: what is left after five requests, of these and of the rest; and of the rest after the first."""
    head = ["method", "left of the last", "the most of an earlier one", "retrained", "retained, after 1", "after 5",
            "never given, after 1", "after 5", "seconds a request"]  # fmt: skip
    rows = []
    for path in sorted((RESULTS / "in-turn").glob("*.json")):
        served = json.loads(path.read_text())["requests"]
        first, last = served[0], served[-1]
        figures = (last["forget"], max(last["earlier"].values()), last["references"], first["retain"], last["retain"],
                   first["kept"], last["kept"])  # fmt: skip
        seconds = fmean(each["seconds"] for each in served)
        rows.append([f"`{last['method']}`", *map(_number, figures), f"{seconds:.1f}"])
    return table(head, rows)


def tofu() -> str:
    """A line a model: the original, the retrained ones in the mean, and every method, with its verdict."""
    reports = {path.stem: Report.load(path) for path in sorted((RESULTS / "tofu").glob("*.json"))}
    rows = []
    for i, (name, report) in enumerate(reports.items()):
        if i == 0:
            rows += [["the original", *_line(report, ["original"]), ""],
                     ["retrained, mean of 3", *_line(report, named(report, "reference")), ""]]  # fmt: skip
        rows.append([f"`{name}`", *_line(report, [report["method"]["name"]]), report["verdict"]["word"]])
    return table(["model", *FIGURES.values(), "verdict"], rows)


def _line(report: Report, models: Sequence[str]) -> list[str]:
    found = {f: [v for m in models if (v := report.value(f, m)) is not None] for f in FIGURES}
    return [_number(fmean(values) if values else None) for values in found.values()]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
