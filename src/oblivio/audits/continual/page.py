"""A continual comparison as one page of HTML that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oblivio.audits.continual.charts import charts
from oblivio.audits.continual.comparison import ABOVE, JOINT, NAIVE, VERSION, Comparison
from oblivio.audits.continual.drawing import svg
from oblivio.audits.report.cells import Cell, Row
from oblivio.audits.report.charts import Absent, Chart
from oblivio.audits.report.page import render
from oblivio.data.history import Mean

SCENARIOS = {
    "class": ("Class-incremental", "New classes come; the answer is among all classes so far, the task unknown."),
    "task": ("Task-incremental", "New classes come; the task of every row is known, at test too."),
    "domain": ("Domain-incremental", "The same answers, on inputs that change; the task is unknown."),
}
LEVELS, DIFFERENCES = ("acc", "aia", "la", "wc_acc"), ("fm",)
HEADS = {
    "acc": "ACC", "aia": "AIA", "fm": "forgetting", "la": "LA", "wc_acc": "WC-ACC", "known": "task known",
    "cost": "cost / joint", "stored": "stored",
}  # fmt: skip
READ = (
    ("ACC", "average over all tasks after the last one; below it the difference to naive training, paired by seed."),
    ("AIA", "average incremental accuracy: the mean of ACC after every experience."),
    ("forgetting", "best accuracy on a task before the last experience, less that at the end; negative: it improved."),
    ("LA", "learning accuracy: on each task as soon as it was learned. ACC = LA + (T-1)/T backward transfer."),
    ("WC-ACC", "what the average is at least, whenever one looks: the worst of each task since it was learned."),
    ("task known", "ACC of the same model when the task of each test row is told."),
    ("cost / joint", "rows through forwards and, counted twice, backwards, beside joint training once; below it beside "
                     "joint training anew at every task."),
    ("stored", "bytes carried from one task to the next beside the model."),
)  # fmt: skip


def page(results: Comparison) -> str:
    """The page of a comparison; a pure function of what ``Comparison.to_json`` holds."""
    return render(
        "continual.html.j2", name=results.name, facts=results.facts, version=VERSION,
        read=READ, above=f"{100 * ABOVE:g}", sections=[section(results, scenario) for scenario in results.scenarios],
    )  # fmt: skip


def section(of: Comparison, scenario: str) -> dict[str, Any]:
    """All that the page says of one scenario."""
    title, words = SCENARIOS.get(scenario, (scenario, ""))
    columns = heads(of, scenario)
    return {
        "id": scenario, "title": title, "words": words, "heads": [HEADS[c] for c in columns],
        "rows": [row(of, scenario, method, columns) for method in ordered(of, scenario)],
        "notes": of.uninformative(scenario), "charts": drawn(charts(of, scenario)),
        "resources": resources(of, scenario),
        "budgets": [budget(of, scenario, each) for each in of.budgets(scenario)],
    }  # fmt: skip


def heads(of: Comparison, scenario: str) -> list[str]:
    """The columns that some method has a figure for."""
    methods = of.methods(scenario)
    figures = [n for n in ("acc", "aia", "fm", "la", "wc_acc") if any(of.figure(scenario, m, n) for m in methods)]
    known = ["known"] if scenario == "class" else []
    costs = ["cost", "stored"] if any(of.cost(scenario, m, "stored") for m in methods) else []
    return [*figures, *known, *costs]


def ordered(of: Comparison, scenario: str, budget: int | None = None) -> list[str]:
    """Joint training first, naive last, between them the best method first."""
    sign = 1 if of.of(scenario, NAIVE)[0].history.higher else -1

    def place(method: str) -> tuple[int, float]:
        found = of.figure(scenario, method, "acc", budget if method in of.methods(scenario, budget) else None)
        return {JOINT: 0, NAIVE: 2}.get(method, 1), 0.0 if found is None else -sign * found.mean

    lines = {JOINT, NAIVE} if budget is not None else set()
    return sorted({*of.methods(scenario, budget), *lines}, key=place)


def row(of: Comparison, scenario: str, method: str, columns: Sequence[str], budget: int | None = None) -> Row:
    """A line of the table."""
    seeds = len(of.of(scenario, method, budget))
    cells = [_cell(of, scenario, method, column, budget) for column in columns]
    return Row(f"{seeds} seed{'s' * (seeds != 1)}", method, cells)


def _cell(of: Comparison, scenario: str, method: str, column: str, budget: int | None) -> Cell:
    head, higher = HEADS[column], of.of(scenario, NAIVE)[0].history.higher
    if column == "cost":
        once, every = (of.cost(scenario, method, name, budget) for name in ("joint", "every_task"))
        small = "" if every is None else f"{every.mean:.2f} of retraining at every task"
        return Cell(head, "–" if once is None else f"{once.mean:.2f}", small, "" if once else "weak")
    if column == "stored":
        return _bytes(head, of.cost(scenario, method, "stored", budget), of, scenario, method, budget)
    name, view = ("acc", "task") if column == "known" else (column, "served")
    found = of.figure(scenario, method, name, budget, view)
    if found is None:
        return Cell(head, "–", mark="weak")
    small = _beside(of, scenario, method, budget, higher) if column == "acc" else ""
    return Cell(head, mean(found, higher), small)


def _beside(of: Comparison, scenario: str, method: str, budget: int | None, higher: bool) -> str:
    if method == NAIVE:
        return ""
    found = of.beside(scenario, method, NAIVE, budget=budget)
    if found is None:
        return ""
    return f"{'+' * (found.mean >= 0)}{mean(found, higher)} to naive"


def _bytes(head: str, found: Mean | None, of: Comparison, scenario: str, method: str, budget: int | None) -> Cell:
    if found is None:
        return Cell(head, "–", mark="weak")
    over = budget is not None and method not in (JOINT, NAIVE) and found.mean > budget
    grows = any(o.ledger is not None and o.ledger.grows for o in of.of(scenario, method, budget))
    words = ["over the budget"] * over + ["grows with the tasks"] * grows
    return Cell(head, size(found.mean), ", ".join(words), "bad" if over else "")


def mean(found: Mean, higher: bool) -> str:
    """Mean and half the width of its interval; shares in percent."""
    times, digits = (100.0, ".1f") if higher else (1.0, ".3g")
    text = f"{times * found.mean:{digits}}"
    if found.half is None:
        return text
    return f"{text}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{times * found.half:{digits}}"


def size(number: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


RESOURCES = ["steps", "forward", "backward", "seconds", "peak memory", "samples stored", "parameters", "NetScore"]


def resources(of: Comparison, scenario: str) -> list[Row]:
    """What every method took in all, the mean over seeds; empty where no meter ran."""
    found = []
    for method in ordered(of, scenario):
        ledgers = [o.ledger for o in of.of(scenario, method) if o.ledger is not None]
        if not ledgers:
            continue
        texts = [f"{sum(each.total(what) for each in ledgers) / len(ledgers):,.0f}" for what in RESOURCES[:3]]
        texts.append(f"{sum(each.total('seconds') for each in ledgers) / len(ledgers):.1f}")
        score = of.cost(scenario, method, "net_score")
        peak, rows = (of.cost(scenario, method, name) for name in ("peak", "rows"))
        texts += [size(peak.mean) if peak else "–", f"{rows.mean:,.0f}" if rows else "–"]
        texts += [f"{ledgers[-1].parameters:,}", "–" if score is None else f"{score.mean:.1f}"]
        smalls = ["", "", "", "", "", "", _ratio(ledgers[-1].parameters, ledgers[-1].base_parameters), ""]
        cells = [Cell(head, text, small) for head, text, small in zip(RESOURCES, texts, smalls, strict=True)]
        found.append(Row("", method, cells))
    return found


def _ratio(now: int, before: int) -> str:
    return "" if now == before or not before else f"{now / before:.2f} of the model given"


def budget(of: Comparison, scenario: str, each: int) -> dict[str, Any]:
    """The table at one memory budget; joint and naive training stand beside it without one."""
    columns = [c for c in heads(of, scenario) if c in ("acc", "fm", "known", "cost", "stored")]
    rows = [
        row(of, scenario, method, columns, each if method in of.methods(scenario, each) else None)
        for method in ordered(of, scenario, each)
    ]
    return {"title": size(each), "heads": [HEADS[c] for c in columns], "rows": rows}


def drawn(made: Sequence[Chart]) -> list[dict[str, Any]]:
    """What the page needs of each chart."""
    return [{"title": c.title, "read": c.read, "svg": None if isinstance(c, Absent) else svg(c)} for c in made]
