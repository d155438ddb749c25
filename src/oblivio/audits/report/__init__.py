"""The report: what an audit found, as numbers that stand alone, as text, and as one page to read."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oblivio.audits.report.text import table
from oblivio.audits.verdict import Verdict, judge, named
from oblivio.core.errors import BadInput, nearest
from oblivio.core.files import read_json, write_bytes, write_json

JSON, HTML, ROWS = "report.json", "report.html", "rows.parquet"


class Report(dict[str, Any]):
    """All that an audit found, as JSON holds it; the verdict and every drawing can be made again from this alone.

    ``request``: goal, kind, classes, task, and numbers of rows. ``subjects``: name and kind of every model.
    ``figures``: what each probe found. ``policy``: the rules. ``verdict``: word, reasons, checks. ``losses``:
    histograms. ``method``, ``cost``, ``data``, ``notes``, ``guarantee``, ``derived``, ``reproduced``, ``ladder``: see
    ``oblivio.audits.audit.Facts``. It prints as a table.
    """

    per_row: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any], per_row: Mapping[str, Any] | None = None) -> Report:
        """A report of these findings; ``per_row`` are the columns of ``rows.parquet``."""
        made = cls(json.loads(json.dumps(found, default=_plain)))
        made.per_row = per_row
        return made

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a ``report.json``, or that of a folder. Raises BadInput for anything else."""
        path = Path(path)
        file = path / JSON if path.is_dir() else path
        if not file.is_file():
            raise BadInput(f"{path} is no report: there is no {JSON}")
        found = read_json(file)
        if not isinstance(found, dict) or not {"figures", "policy", "subjects", "verdict"} <= found.keys():
            raise BadInput(f"{file} is no report of an audit")
        return cls(found)

    @property
    def verdict(self) -> Verdict:
        """ACCEPTED, REJECTED or INCONCLUSIVE, with reasons; worked out from the figures."""
        return judge(self)

    def value(self, figure: str, name: str | None = None) -> float | None:
        """A figure of the model ``name`` (default: the outcome); None where it does not apply. BadInput: no such."""
        known = {each["id"]: each["values"] for each in self["figures"]}
        if figure not in known:
            raise BadInput(f"the report has no figure {figure!r}{nearest(figure, known)}")
        found = known[figure].get(name or named(self, "outcome")[0])
        return None if found is None else float(found["value"])

    def table(self) -> str:
        """Verdict, figures and cost as readable text."""
        return table(self)

    def __str__(self) -> str:
        return self.table()

    def html(self) -> str:
        """One page that stands alone: nothing is loaded from elsewhere."""
        from oblivio.audits.report.page import page

        return page(self)

    def save(self, path: str | Path, *, rows: bool = True) -> None:
        """Write the page to ``path``, and beside it ``report.json`` and, if ``rows``, ids and figures of every row.

        Raises:
            BadInput: no folder of that name, or no library to write rows with.
        """
        path = Path(path)
        if not path.absolute().parent.is_dir():
            raise BadInput(f"{path}: there is no folder {path.parent}")
        write_bytes(path, self.html().encode())
        if rows and self.per_row is not None:
            write_rows(path.with_name(ROWS), self.per_row)
        self.save_json(path.with_name(JSON))

    def save_json(self, path: Path) -> None:
        """Write the findings alone."""
        write_json(path, self)

    def but(self, **fields: Any) -> Report:
        """The same findings with other facts, judged anew."""
        made = Report.of({**copy.deepcopy(dict(self)), **fields}, self.per_row)
        made["verdict"] = judge(made).to_json()
        return made


def write_rows(path: Path, columns: Mapping[str, Any]) -> None:
    """Write ids and per-row figures; they say nothing of what a row holds."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise BadInput(f"{path.name} needs pyarrow: pip install 'oblivio[tables]', or leave rows out") from None
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({name: np.asarray(values) for name, values in columns.items()}), sink)
    write_bytes(path, sink.getvalue().to_pybytes())


def _plain(value: Any) -> Any:
    """What ``json`` does not know: numbers of NumPy, mappings, tuples."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.item() if isinstance(value, np.generic) else list(value)
