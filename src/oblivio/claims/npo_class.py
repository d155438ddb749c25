"""NPO on a whole class."""

from __future__ import annotations

from oblivio.claims.npo import claim
from oblivio.claims.problems import CLASS, class_three

CLAIM = claim(CLASS, class_three, lr=0.01, tolerance=0.02)
