"""A report as text, for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from oblivio.audits.verdict import named
from oblivio.audits.words import agreed, aligned, number

SHOWN = (
    "forget", "affected", "retain", "kept", "mia_lira", "small_request", "linear_probe", "relearning", "recovery",
    "cka_forget", "divergence_forget", "divergence_test", "rephrased", "extraction", "truth_distance", "min_k",
    "prompts", "sampled", "prefix", "early", "quantized", "utility",
)  # fmt: skip
HEADS = {
    "forget": "forget", "affected": "affected", "retain": "retain", "kept": "test", "mia_lira": "LiRA",
    "small_request": "rank p", "linear_probe": "probe", "relearning": "relearn", "recovery": "recover",
    "cka_forget": "CKA", "divergence_forget": "apart forget", "divergence_test": "apart test",
    "rephrased": "rephrased", "extraction": "extract", "truth_distance": "truth KS", "min_k": "min-k",
    "prompts": "prompts", "sampled": "sampled", "prefix": "prefix", "early": "early", "quantized": "4 bits",
    "utility": "utility",
}  # fmt: skip
WIDTH = 118
UNTRIED = ("not allowed", "too dear")


def table(report: Mapping[str, Any]) -> str:
    """Verdict and reasons, the figures that judge and a few more, what it cost, and notes."""
    verdict = report["verdict"]
    reasons = [wrapped(f"- {reason}", "  ") for reason in verdict["reasons"]]
    notes = [wrapped(f"note: {note}", "  ") for note in report["notes"]]
    spent, rungs = report["cost"], report.get("ladder")
    blocks = [[verdict["word"], *reasons], [figures(report)], [cost(spent)] if spent else [],
              [ladder(rungs)] if rungs else [], notes]  # fmt: skip
    return "\n\n".join("\n".join(block) for block in blocks if block)


def figures(report: Mapping[str, Any]) -> str:
    """A line for each model, and what the references agree on; columns that do not apply are left out."""
    request, known = report["request"], {figure["id"]: figure for figure in report["figures"]}
    shown = [known[name] for name in SHOWN if name in known and known[name]["state"] == "figure"]
    references = named(report, "reference")
    lines = [[f"{request['figure']}{' in %' if request['higher'] else ''}", *(HEADS[f["id"]] for f in shown)]]
    alone = [s["name"] for s in report["subjects"] if s["kind"] != "reference" or len(references) < 2]
    lines += [[name, *(_cell(figure, name, request) for figure in shown)] for name in alone]
    if len(references) > 1:
        lines.append([f"{len(references)} retrained", *(_summary(figure, references, request) for figure in shown)])
    return aligned(lines)


def _cell(figure: Mapping[str, Any], name: str, request: Mapping[str, Any]) -> str:
    value = figure["values"].get(name)
    return number(None if value is None else value["value"], figure["unit"], request)


def _summary(figure: Mapping[str, Any], references: Sequence[str], request: Mapping[str, Any]) -> str:
    values = [figure["values"][name]["value"] for name in references if name in figure["values"]]
    return " ± ".join(agreed(values, figure["unit"], request)) if len(values) > 1 else "–"


def ladder(rungs: Sequence[Mapping[str, Any]]) -> str:
    """The methods that were tried, in order, with what each took and why it was not taken."""
    heads = ["methods tried", "verdict", "% of retraining"]
    tried = [[rung["method"], rung["word"], share(rung["cost"])] for rung in rungs if rung["word"] not in UNTRIED]
    counts = Counter(rung["word"] for rung in rungs)
    untried = [f"{counts[word]} {word}" for word in UNTRIED if counts[word]]
    left = [f"not tried: {', '.join(untried)}; the report says why"] if untried else []
    return "\n".join([aligned([heads, *tried]), *left])


def share(value: float | None) -> str:
    """A share in percent, or a dash."""
    return "–" if value is None else f"{100 * value:.1f}"


def cost(spent: Mapping[str, Any]) -> str:
    """What the method took, in one line."""
    rows = ", ".join(f"{n:,} of {name}" for name, n in spent["rows"].items())
    shares = [f"{100 * share:.1f}% of retraining's {name}" for name, share in spent.get("of_retraining", {}).items()]
    return f"cost: {spent['seconds']:.1f} s; rows forwarded: {rows or 'none'}{'; ' * bool(shares)}{', '.join(shares)}"


def wrapped(text: str, indent: str) -> str:
    """Text in lines that fit a page."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
