"""What a learner's folder knows of rows that were forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oblivio.core.files import write_json
from oblivio.learners._turns import RECEIPTS, Turns


def test_a_row_that_was_learned_again_is_known_as_learned(tmp_path: Path) -> None:
    write_json(tmp_path / RECEIPTS, [{"turn": 2, "receipt": {"ids": [3, 8]}}])
    learned = [np.array([1, 3]), np.array([8, 9]), np.array([3, 4])]
    kept = Turns(tmp_path).without_forgotten(learned)
    assert [ids.tolist() for ids in kept] == [[1], [9], [3, 4]]


def test_without_a_request_all_rows_are_known() -> None:
    assert [ids.tolist() for ids in Turns(None).without_forgotten([np.array([1, 3])])] == [[1, 3]]
