"""Gradient ascent on a whole class."""

from __future__ import annotations

from oblivio.claims.grad_ascent import claim
from oblivio.claims.problems import CLASS, class_three

CLAIM = claim(
    CLASS,
    class_three,
    lr=0.01,
    tolerance=0.02,
    because={
        "crossing_retain < 0.85": "A class has an output and a region of its own: lowering the one costs retained "
        "rows little at first, and the harm comes with the steps after. Rows that look like retained ones "
        "(grad_ascent) leave no such room",
    },
)
