"""A history as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oblivio.data.history.history import History

NAMES = {
    "acc": "average accuracy (ACC)", "acc_pooled": "over all rows of the tasks so far",
    "aia": "average incremental (AIA)", "la": "learning accuracy (LA)", "bwt": "backward transfer (BWT)",
    "fm": "forgetting (FM)", "fwt": "forward transfer (FWT)", "slope": "slope of learning accuracy",
    "im": "intransigence (IM)", "plasticity": "against nets of their own",
    "min_acc": "worst since learned (min-ACC)", "wc_acc": "worst case (WC-ACC)",
    "wf_10": "windowed forgetting (WF_10)", "wf_100": "windowed forgetting (WF_100)",
    "wp_10": "windowed plasticity (WP_10)", "wp_100": "windowed plasticity (WP_100)",
    "gap_depth": "depth of the gap", "gap_recovery": "recovery from it", "lca_10": "learning curve area (LCA_10)",
}  # fmt: skip


def table(history: History) -> str:
    """The matrix as it is served, with a dash before a task came, then every figure that applies."""
    percent = history.higher
    lines = [[f"{history.figure}{', %' if percent else ''}", *(str(t["name"] or t["task"]) for t in history.tasks)]]
    seen: set[int] = set()
    for record in history.records:
        seen |= set(record["learned"])
        name = "untrained" if record["turn"] == 0 else f"after {record['turn']}"
        values = enumerate(record["figures"]["served"])
        lines.append([name, *(said(v, percent) if i in seen or not record["turn"] else "–" for i, v in values)])
    figures = history.metrics()
    shown = [[NAMES[name], said(figures[name], percent)] for name in NAMES if name in figures]
    if "task" in history.views and history.records:
        beside = history.metrics("task")
        shown += [[f"{NAMES[n]}, task known", said(beside[n], percent)] for n in ("acc", "fm") if n in beside]
    return "\n\n".join(_aligned(block) for block in (lines, shown) if block)


def said(value: float, percent: bool) -> str:
    """A figure: shares in percent."""
    return f"{100 * value:z.1f}" if percent else f"{value:.4g}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        [line[0].ljust(widths[0]), *(w.rjust(n) for w, n in zip(line[1:], widths[1:], strict=True))] for line in lines
    ]
    return "\n".join("  ".join(row).rstrip() for row in rows)
