"""Reports without models: every state that a figure may have, in numbers that can be checked by eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oblivio.audits.policy import Rule, to_json
from oblivio.audits.report import Report
from oblivio.audits.verdict import judge

REFERENCES = ["retrained 1", "retrained 2", "retrained 3"]
LAYERS = ["layer1", "layer2", "head"]


def value(number: float, *, wide: float | None = None, **given: Any) -> dict[str, Any]:
    """A value; ``wide`` is half of its interval."""
    low, high = (None, None) if wide is None else (number - wide, number + wide)
    return {"value": number, "low": low, "high": high, "rows": 100, "curve": [], "note": "", **given}


def figure(name: str, question: str, says: str, unit: str, about: str = "", *, outcome: Any = None,
           original: Any = None, references: Sequence[Any] = (), masked: Any = None) -> dict[str, Any]:  # fmt: skip
    """A figure of numbers, or of values that are made already; None: not measured on it."""
    given = {"npo": outcome, "original": original, "output masked": masked}
    given |= dict(zip(REFERENCES, references, strict=False))
    values = {each: v if isinstance(v, dict) else value(v, wide=0.01) for each, v in given.items() if v is not None}
    return _figure(name, question, says, unit, about, "figure", "", values)


def without(name: str, question: str, says: str, unit: str, why: str, state: str = "does not apply") -> dict[str, Any]:
    """A figure that has no value, and why."""
    return _figure(name, question, says, unit, "", state, why, {})


def _figure(name: str, question: str, says: str, unit: str, about: str, state: str, why: str,
            values: Mapping[str, Any]) -> dict[str, Any]:  # fmt: skip
    return {"id": name, "question": question, "says": says, "unit": unit, "about": about, "state": state, "why": why,
            "values": dict(values)}  # fmt: skip


def curve(*numbers: float, places: Sequence[Any] = LAYERS) -> dict[str, Any]:
    """A value with a curve; the value is the last of it."""
    return value(numbers[-1], curve=[list(pair) for pair in zip(places, numbers, strict=True)])


def steps(*numbers: float) -> dict[str, Any]:
    """A curve over steps 0, 1, ..."""
    return curve(*numbers, places=range(len(numbers)))


FIGURES = [
    figure("forget", "gone", "on forgotten rows", "task", "outputs",
           outcome=0.02, original=1.0, references=[0.0, 0.01, 0.02], masked=0.0),
    figure("unseen", "gone", "on unseen rows of the same classes", "task", "outputs",
           outcome=0.03, original=0.92, references=[0.0, 0.0, 0.01], masked=0.0),
    without("affected", "gone", "on affected rows with their true targets", "task", "there are no affected rows"),
    figure("mia_lira", "gone", "AUC of the likelihood-ratio attack", "auc", "outputs",
           outcome=0.52, original=0.51, references=[0.49, 0.5, 0.52], masked=0.5),
    figure("relearning", "gone", "after relearning", "task", "features", outcome=steps(0.0, 0.3, 0.6),
           original=steps(0.0, 0.7, 0.95),
           references=[steps(0.0, 0.2, 0.5), steps(0.0, 0.25, 0.55), steps(0.0, 0.3, 0.6)]),
    without("rounded_4", "gone", "on forgotten rows with weights of 4 bits", "task", "ValueError: the figure is nan",
            "failed"),
    figure("retain", "intact", "on retained rows", "task", outcome=0.99, original=1.0, references=[1.0, 0.995, 1.0],
           masked=1.0),
    figure("kept", "intact", "on test rows that stay", "task", outcome=0.96, original=0.974,
           references=[0.97, 0.972, 0.968], masked=0.976),
    figure("worst_class", "intact", "of the worst class that stays", "share", outcome=value(0.86, note="class 8"),
           original=value(0.91, note="class 8"), references=[0.88, 0.9, 0.89]),
    figure("by_class", "alike", "change of accuracy by class", "points",
           outcome=curve(-0.01, 0.0, -0.03, -0.9, places=range(4)),
           references=[curve(0.0, 0.01, 0.0, -0.92, places=range(4)), curve(0.0, 0.0, 0.02, -0.91, places=range(4))]),
    figure("cka", "alike", "similarity to the references, test rows", "similarity", "features",
           outcome=curve(0.95, 0.9, 0.6), original=curve(0.96, 0.9, 0.5),
           references=[curve(0.97, 0.95, 0.9), curve(0.98, 0.94, 0.92), curve(0.97, 0.96, 0.91)]),
    figure("divergence_forget", "alike", "divergence from the references, forgotten rows", "divergence", "outputs",
           outcome=0.02, original=0.67, references=[0.015, 0.012, 0.016], masked=0.024),
]  # fmt: skip

# Rules of its own: what is shipped may change. One is of a figure that the report has not.
POLICY = [
    Rule("forget", "both", 0.02, about="outputs"),
    Rule("divergence_forget", "high", 0.01, about="outputs"),
    Rule("mia_lira", "both", 0.03, about="outputs"),
    Rule("linear_probe", "both", 0.03, about="features"),
    Rule("cka", "low", 0.03, about="features"),
    Rule("relearning", "both", 0.03, about="features"),
    Rule("retain", "low", 0.015),
    Rule("kept", "low", 0.015),
]

LOSSES = {
    "edges": [0.0, 0.5, 1.0, 1.5],
    "before": {"members": [0.9, 0.08, 0.02], "unseen": [0.7, 0.2, 0.1], "forgotten": [0.88, 0.1, 0.02]},
    "after": {"members": [0.85, 0.1, 0.05], "unseen": [0.1, 0.2, 0.7], "forgotten": [0.05, 0.15, 0.8]},
}


def report(**fields: Any) -> Report:
    """One with every state of figures; ``fields`` in place of its own. The verdict is worked out."""
    subjects = [("npo", "outcome"), ("original", "original"), *((name, "reference") for name in REFERENCES),
                ("output masked", "control")]  # fmt: skip
    found = {
        "version": 1, "oblivio": "0.1.0",
        "request": {"goal": "retrained", "kind": "class", "classes": [3], "task": "classification",
                    "figure": "accuracy", "higher": True, "chance": 0.25,
                    "rows": {"test": 300, "retain": 900, "forget": 120},
                    "sampled": {"forget": 120, "retain": 900, "test": 300}},
        "subjects": [{"name": name, "kind": kind} for name, kind in subjects],
        "figures": FIGURES, "policy": to_json(POLICY), "losses": LOSSES,
        "method": {"name": "npo", "settings": {"lr": 0.01, "beta": 0.1}, "plan": "min -2/beta log sigmoid"},
        "cost": {"seconds": 2.5, "rows": {"retain": 1200, "forget": 600}, "peak_bytes": 300 * 2**20,
                 "of_retraining": {"seconds": 0.05, "rows": 0.02}},
        "data": {"name": "digits", "licence": "CC BY 4.0", "classes": ["zero", "one", "two", "three"]},
        "notes": ["two rows occur twice"], "guarantee": "empirical",
        "derived": [{"path": "runs/one/model", "what": "the original", "sha256": "00"}], "reproduced": None,
        **fields,
    }  # fmt: skip
    return Report.of({**found, "verdict": judge(found).to_json()})


def renamed(found: Report, name: str, by: float = 0.0) -> Report:
    """The same report on an outcome of another name, all of its figures ``by`` more, but at most 1."""

    def more(number: float) -> float:
        return min(number + by, 1.0)

    def moved(value: Mapping[str, Any]) -> dict[str, Any]:
        ends = {end: None if value[end] is None else more(value[end]) for end in ("low", "high")}
        return {**value, **ends, "value": more(value["value"]), "curve": [[at, more(v)] for at, v in value["curve"]]}

    def values(figure: Mapping[str, Any]) -> dict[str, Any]:
        return {name if n == "npo" else n: moved(v) if n == "npo" else v for n, v in figure["values"].items()}

    subjects = [{**s, "name": name} if s["kind"] == "outcome" else s for s in found["subjects"]]
    figures = [{**f, "values": values(f)} for f in found["figures"]]
    return found.but(subjects=subjects, figures=figures, method={**found["method"], "name": name})
