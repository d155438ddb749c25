"""Gradient difference on a whole class."""

from __future__ import annotations

from oblivio.claims.grad_diff import claim
from oblivio.claims.problems import CLASS, class_three

CLAIM = claim(CLASS, class_three, lr=0.0005, tolerance=0.02)
