"""A learner's folder: one run a turn, what the structure was when it began, and the receipts of what was forgotten.

``turn-0003/`` holds the checkpoints of the third experience and ``begin.json``; earlier turns are removed once a later
one is finished. A turn counts from its first checkpoint on: before that the one before it is in force.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oblivio.core import files, surgery
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Ids
from oblivio.learners.forgetting import Forgotten

RECEIPTS = "receipts.json"


class Turns:
    """The turns in ``folder``; without one nothing is kept. ``saved`` is the last turn that has a checkpoint, or 0."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        found = [] if folder is None else [int(p.parent.name[5:]) for p in folder.glob("turn-*/checkpoint.json")]
        self.saved = max(found, default=0)

    def place(self, turn: int) -> Path | None:
        """Where the run of a turn keeps its checkpoints."""
        return None if self.folder is None else self.folder / f"turn-{turn:04d}"

    def begin(self, work: Problem) -> None:
        """A turn begins that was never begun, or broke off before its first checkpoint."""
        place = self.place(work.turn)
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            files.write_json(place / "begin.json", {"journal": work.journal})

    def replay(self, work: Problem) -> None:
        """Bring fresh networks to the structure they had when the saved turn began."""
        place = self.place(self.saved)
        assert place is not None
        journal = files.read_json(place / "begin.json")["journal"]
        surgery.replay(work.nets, journal[len(work.journal) :])
        work.nets.to(work.team.device)
        work.journal = journal

    def finished(self, turn: int) -> None:
        """The turns before this one are no longer needed."""
        if self.folder is None:
            return
        self.saved = max(self.saved, turn)
        for old in self.folder.glob("turn-*"):
            if int(old.name[5:]) < turn:
                shutil.rmtree(old)

    # --- what was forgotten

    def _receipts(self) -> list[dict[str, Any]]:
        path = None if self.folder is None else self.folder / RECEIPTS
        found: list[dict[str, Any]] = files.read_json(path) if path is not None and path.exists() else []
        return found

    def receipt(self, turn: int, ids: Sequence[Any]) -> Forgotten | None:
        """The receipt of the same request after the same turn, when it was carried out before."""
        for entry in self._receipts():
            if entry["turn"] == turn and entry["receipt"]["ids"] == list(ids):
                return Forgotten.from_json(entry["receipt"])
        return None

    def without_forgotten(self, learned: list[Ids]) -> list[Ids]:
        """The ids of every turn less those that were forgotten after it; a row may have been learned again since."""
        kept = list(learned)
        for entry in self._receipts():
            gone = np.array(entry["receipt"]["ids"])
            kept = [ids[~np.isin(ids, gone)] if turn <= entry["turn"] else ids for turn, ids in enumerate(kept, 1)]
        return kept

    def forgotten(self, turn: int, receipt: Forgotten, run: Run) -> None:
        """Write the state without the rows, then the receipt."""
        if self.folder is not None:
            run.done = True
            run.checkpoint()
            entries = [*self._receipts(), {"turn": turn, "receipt": receipt.to_json()}]
            files.write_json(self.folder / RECEIPTS, entries)
