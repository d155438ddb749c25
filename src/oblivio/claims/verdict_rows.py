"""The verdict on requests to forget five percent of the rows of Fashion-MNIST, drawn at random."""

from __future__ import annotations

from oblivio.claims.verdict import claim

CLAIM = claim({"random": 0.05}, "a random twentieth of its rows goes")
